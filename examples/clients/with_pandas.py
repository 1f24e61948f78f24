"""Read scores into a pandas DataFrame; psycopg, below SQLAlchemy, takes the address from PGHOST and its likes."""

import pandas as pd
from sqlalchemy import create_engine, text

QUERY = """
SELECT s.id, p.area
FROM sides s JOIN ml.triangle p USING (a, b, c)
WHERE s.id <= :last
ORDER BY s.id
"""

engine = create_engine("postgresql+psycopg://")
with engine.connect() as connection:
    scores = pd.read_sql(text(QUERY), connection, params={"last": 3})
print(scores.to_string(index=False, header=False))
