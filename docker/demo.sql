-- The example's session: 569 rows beside the models that score them. The container's first start runs it.
\set csv /example/patients.csv
\set url grpc://triton:8001
\i /src/examples/patients.sql
\i /src/examples/connect.sql

SELECT id, malignant, benign, diagnosis
FROM patients NATURAL JOIN ml.breast_cancer
ORDER BY id
LIMIT 5;
