-- What the documents take for granted, besides table "patients": tables whose rows models score.
-- One that is there already stays as it is: in the database of "make up" it may be the user's.

CREATE TABLE IF NOT EXISTS sides AS
SELECT i AS id, 3.0 * i AS a, 4.0 * i AS b, CASE WHEN i % 11 > 0 THEN 5.0 * i END AS c
FROM generate_series(1, 5000) AS i;

CREATE TABLE IF NOT EXISTS customers AS
SELECT i AS id, (i * 7 % 120)::integer AS tenure, (i * 37 % 900)::numeric AS spend, (18 + i % 70)::smallint AS age,
       CASE i % 4 WHEN 0 THEN 'gold' ELSE 'basic' END AS tariff
FROM generate_series(1, 20000) AS i;

CREATE TABLE IF NOT EXISTS transactions AS
SELECT 't' || i AS id, (i * 37 % 2000)::numeric(10, 2) AS amount,
       timestamptz '2026-11-24 00:00+01' + i * interval '7 min' AS time,
       CASE i % 3 WHEN 0 THEN 'CHANNEL_ONLINE' ELSE 'CHANNEL_TERMINAL' END AS channel,
       CASE i % 5 WHEN 0 THEN 'gambling' ELSE 'food' END AS category, 'de' AS country
FROM generate_series(1, 1000) AS i;

CREATE TABLE IF NOT EXISTS reviews AS
SELECT id, text
FROM (VALUES (1, 'What a lovely surprise, thank you!'), (2, 'Cold soup and rude waiters.')) AS v (id, text);

ANALYZE sides, customers, transactions, reviews;
