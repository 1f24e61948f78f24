-- 569 real rows: 30 measurements of a tumour's cell nuclei and the physician's diagnosis.
-- The column names are those of the model's inputs, so that NATURAL JOIN finds them.
-- Variable csv: the file that examples/data.py wrote, where the server can read it.

CREATE TABLE patients (
    id integer PRIMARY KEY,
    mean_radius double precision,
    mean_texture double precision,
    mean_perimeter double precision,
    mean_area double precision,
    mean_smoothness double precision,
    mean_compactness double precision,
    mean_concavity double precision,
    mean_concave_points double precision,
    mean_symmetry double precision,
    mean_fractal_dimension double precision,
    radius_error double precision,
    texture_error double precision,
    perimeter_error double precision,
    area_error double precision,
    smoothness_error double precision,
    compactness_error double precision,
    concavity_error double precision,
    concave_points_error double precision,
    symmetry_error double precision,
    fractal_dimension_error double precision,
    worst_radius double precision,
    worst_texture double precision,
    worst_perimeter double precision,
    worst_area double precision,
    worst_smoothness double precision,
    worst_compactness double precision,
    worst_concavity double precision,
    worst_concave_points double precision,
    worst_symmetry double precision,
    worst_fractal_dimension double precision,
    diagnosis text NOT NULL,
    held_out boolean NOT NULL
);

COMMENT ON COLUMN patients.held_out IS 'not shown to the training of the model';

COPY patients FROM :'csv' (FORMAT csv, HEADER);

ANALYZE patients;
