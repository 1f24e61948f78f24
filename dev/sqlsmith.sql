-- What "make test-sqlsmith" shows to sqlsmith: tables of a few rows, models, and views that give the models' inputs
-- their values, as no condition that is made at random would. sqlsmith sees what role smith may read, nothing else.
CREATE EXTENSION model_fdw;
CREATE ROLE smith LOGIN;
CREATE ROLE analyst;
GRANT CREATE, USAGE ON SCHEMA public TO analyst;

-- Tables: with NULLs, partitioned, inherited with the columns in another order, under row-level security.
CREATE TABLE t (id int PRIMARY KEY, x float8, y float8, k int, note text);
INSERT INTO t SELECT i, nullif(i % 4, 3), i / 2.0, nullif(i % 3, 1), 'n' || i FROM generate_series(1, 8) AS i;
CREATE TABLE u (id int, t_id int, z float8, flag bool);
INSERT INTO u SELECT i, nullif(i % 5, 0), i % 3, i > 3 FROM generate_series(1, 6) AS i;
CREATE INDEX ON u (t_id);
CREATE TABLE pp (id int, x float8, y float8, v float8) PARTITION BY LIST (id);
CREATE TABLE pp_odd (v float8, y float8, x float8, id int);
ALTER TABLE pp ATTACH PARTITION pp_odd FOR VALUES IN (1, 3, 5);
CREATE TABLE pp_rest PARTITION OF pp DEFAULT;
INSERT INTO pp SELECT i, i % 3, i, i FROM generate_series(1, 7) AS i;
CREATE TABLE par (id int, x float8, note text);
CREATE TABLE child (more float8) INHERITS (par);
INSERT INTO par SELECT i, i % 2, 'par' FROM generate_series(1, 3) AS i;
INSERT INTO child SELECT i, i % 2, 'child', i FROM generate_series(4, 6) AS i;
CREATE TABLE secret (id int PRIMARY KEY, x float8, word text);
INSERT INTO secret SELECT i, i % 4, 'secret' || i FROM generate_series(1, 6) AS i;
CREATE FUNCTION leak(float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION drift(float8) RETURNS float8 VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';

-- Models: of one input, of two, without any that must be bound, partitioned, with an error column.
CREATE SERVER models FOREIGN DATA WRAPPER model_fdw OPTIONS (url :'url');
CREATE SCHEMA ml;
CREATE FOREIGN TABLE ml.fake (x float8 OPTIONS (input 'x'), y float8 OPTIONS (output 'y'),
    label text OPTIONS (output 'label')) SERVER models OPTIONS (model 'fake');
CREATE FOREIGN TABLE ml.pair (a float8 OPTIONS (input 'a'), b float8 OPTIONS (input 'b'), s float8 OPTIONS (output 's'),
    d float8 OPTIONS (output 'd')) SERVER models OPTIONS (model 'pair');
CREATE FOREIGN TABLE ml.free (a float8 OPTIONS (input 'a', optional 'true'),
    b float8 OPTIONS (input 'b', optional 'true'), s float8 OPTIONS (output 's'), d float8 OPTIONS (output 'd'))
    SERVER models OPTIONS (model 'pair');
CREATE FOREIGN TABLE ml.whole (x int OPTIONS (input 'x'), y int OPTIONS (output 'y'),
    label text OPTIONS (output 'label')) SERVER models OPTIONS (model 'fake');
CREATE TABLE ml.parts (x float8, y float8, label text) PARTITION BY RANGE (x);
CREATE FOREIGN TABLE ml.parts_low PARTITION OF ml.parts FOR VALUES FROM (MINVALUE) TO (2)
    SERVER models OPTIONS (model 'fake');
CREATE FOREIGN TABLE ml.parts_high PARTITION OF ml.parts FOR VALUES FROM (2) TO (MAXVALUE)
    SERVER models OPTIONS (model 'fake');
CREATE VIEW ml.both AS SELECT x, y, label FROM ml.fake UNION ALL SELECT x, y + 1, label FROM ml.fake;
CREATE VIEW ml.three AS SELECT x, y FROM ml.fake UNION ALL SELECT a, s FROM ml.pair WHERE b = 1
    UNION ALL SELECT x, y FROM ml.parts;
ALTER TABLE ml.parts ENABLE ROW LEVEL SECURITY;
CREATE POLICY answers ON ml.parts USING (y = 4 OR leak(y) < 3);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY asked ON secret USING ((SELECT p.y FROM ml.fake p WHERE p.x = secret.x) > 1);
GRANT USAGE ON SCHEMA ml TO smith, analyst;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, ml TO analyst;

-- Views: each is one way to ask a model.
SET ROLE analyst;
CREATE VIEW v_inner AS SELECT t.id, t.x, p.s, p.d, t.note FROM t JOIN ml.pair p ON p.a = t.x AND p.b = t.y;
CREATE VIEW v_left AS SELECT t.id, t.k, p.x, p.y, p.label FROM t LEFT JOIN ml.fake p ON p.x = t.x;
CREATE VIEW v_left_on AS SELECT t.id, p.y FROM t LEFT JOIN ml.fake p ON p.x = t.k AND p.y > 1 AND t.note <> 'n3';
CREATE VIEW v_nested AS
    SELECT u.id, u.z, p.y, q.s FROM u
    LEFT JOIN (ml.fake p JOIN ml.pair q ON q.a = p.y) ON p.x = u.z AND q.b = u.id;
CREATE VIEW v_chain AS
    SELECT t.id, p.y, q.y AS yy FROM t JOIN ml.fake p ON p.x = t.x LEFT JOIN ml.fake q ON q.x = p.y;
CREATE VIEW v_both AS SELECT t.id, t.k, b.y, b.label FROM t JOIN ml.both b ON b.x = t.x;
CREATE VIEW v_both_left AS SELECT u.id, u.flag, b.x, b.y FROM u LEFT JOIN ml.both b ON b.x = u.z;
CREATE VIEW v_three AS SELECT t.id, b.y FROM t JOIN ml.three b ON b.x = t.x;
CREATE VIEW v_union AS
    SELECT t.id, p.y FROM t JOIN ml.fake p ON p.x = t.x
    UNION ALL SELECT u.id, q.d FROM u LEFT JOIN ml.pair q ON q.a = u.z AND q.b = u.id;
CREATE VIEW v_parts AS SELECT t.id, t.note, p.x, p.y FROM t JOIN ml.parts p ON p.x = t.x;
CREATE VIEW v_parts_left AS SELECT u.id, u.z, p.y, p.label FROM u LEFT JOIN ml.parts p ON p.x = u.z AND p.y > u.id;
CREATE VIEW v_scalar AS SELECT t.id, t.k, (SELECT p.y FROM ml.fake p WHERE p.x = t.x) AS y FROM t;
CREATE VIEW v_scalar_where AS SELECT u.id, u.z FROM u WHERE (SELECT p.y FROM ml.fake p WHERE p.x = u.z) > 1;
CREATE VIEW v_exists AS SELECT t.id, t.x FROM t WHERE EXISTS (SELECT FROM ml.fake p WHERE p.x = t.x AND p.y > 1);
CREATE VIEW v_not_exists AS
    SELECT t.id, t.x FROM t WHERE NOT EXISTS (SELECT FROM ml.pair p
    WHERE p.a = t.x AND p.b = t.y AND p.s > 5);
CREATE VIEW v_in AS SELECT u.id, u.z FROM u WHERE u.z IN (SELECT p.y FROM ml.fake p WHERE p.x = u.id);
CREATE VIEW v_list AS SELECT u.id, p.x, p.y FROM u JOIN ml.fake p ON p.x IN (1, 2) AND p.y > u.z;
CREATE VIEW v_lateral AS
    SELECT u.id, l.y, l.label FROM u CROSS JOIN LATERAL (SELECT p.y, p.label FROM ml.fake p WHERE p.x = u.z) l;
CREATE VIEW v_cast AS SELECT t.id, w.y, w.label FROM t LEFT JOIN ml.whole w ON w.x = t.y;
CREATE VIEW v_drift AS SELECT t.id, p.y FROM t JOIN ml.fake p ON p.x = drift(t.x);
CREATE VIEW v_barrier WITH (security_barrier) AS
    SELECT t.id, t.note, p.y FROM t LEFT JOIN ml.fake p ON p.x = t.x WHERE t.id > 2;
CREATE VIEW v_group AS SELECT t.k, count(*) AS n, sum(p.y) AS total FROM t JOIN ml.fake p ON p.x = t.x GROUP BY t.k;
CREATE VIEW v_distinct AS SELECT DISTINCT p.y, t.k FROM t LEFT JOIN ml.fake p ON p.x = t.x;
CREATE VIEW v_pp AS SELECT pp.id, pp.v, p.y FROM pp LEFT JOIN ml.fake p ON p.x = pp.x;
CREATE VIEW v_par AS SELECT par.id, par.note, p.y FROM par JOIN ml.fake p ON p.x = par.x;
CREATE VIEW v_secret AS SELECT s.id, s.word, p.y FROM secret s LEFT JOIN ml.fake p ON p.x = s.x;
-- These can be changed, as can those on t and u that only ask whether a row is wanted.
CREATE VIEW v_pp_exists AS SELECT id, x, v FROM pp WHERE EXISTS (SELECT FROM ml.fake p WHERE p.x = pp.x AND p.y > 1);
CREATE VIEW v_pp_not_exists AS
    SELECT id, y, v FROM pp WHERE NOT EXISTS (SELECT FROM ml.both b
    WHERE b.x = pp.x AND b.y > 4);
CREATE VIEW v_par_scalar AS SELECT id, x, note FROM par WHERE (SELECT p.y FROM ml.fake p WHERE p.x = par.x) > 1;
CREATE VIEW v_secret_rows AS SELECT id, x, word FROM secret;
RESET ROLE;

GRANT SELECT, INSERT, UPDATE, DELETE ON t, u, pp, par TO smith;
GRANT SELECT ON ml.free TO smith;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT viewname FROM pg_views WHERE schemaname = 'public' LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO smith', name);
    END LOOP;
END $$;
ANALYZE;

-- sqlsmith reads all operators and functions, most of which make of every condition an error or a constant. It finds
-- them by these catalogs' names, PostgreSQL by their OIDs.
SET allow_system_table_mods = on;
ALTER TABLE pg_catalog.pg_operator RENAME TO pg_all_operators;
CREATE VIEW pg_catalog.pg_operator AS
    SELECT * FROM pg_catalog.pg_all_operators
    WHERE oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '||')
      AND oprleft = ANY ('{bool,int4,int8,float8,text}'::regtype[])
      AND oprright = ANY ('{bool,int4,int8,float8,text}'::regtype[]);
ALTER TABLE pg_catalog.pg_proc RENAME TO pg_all_procs;
CREATE VIEW pg_catalog.pg_proc AS
    SELECT * FROM pg_catalog.pg_all_procs
    WHERE proname IN ('abs', 'float8', 'int4', 'length', 'lower', 'md5', 'sign', 'leak', 'drift', 'sum', 'min', 'max',
                      'count', 'avg', 'bool_or', 'string_agg')
      AND proargtypes::oid[] <@ '{bool,int4,int8,float8,text}'::regtype[]::oid[]
      AND prorettype = ANY ('{bool,int4,int8,float8,text}'::regtype[]);
GRANT SELECT ON pg_catalog.pg_operator, pg_catalog.pg_proc TO public;
