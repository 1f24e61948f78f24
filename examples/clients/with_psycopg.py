"""Read scores with psycopg, which takes the address from the variables PGHOST, PGPORT, PGUSER and PGDATABASE."""

import psycopg

QUERY = """
SELECT s.id, p.area
FROM sides s JOIN ml.triangle p USING (a, b, c)
WHERE s.id <= %s
ORDER BY s.id
"""

with psycopg.connect() as connection:
    for number, area in connection.execute(QUERY, [3]):
        print(number, area)
