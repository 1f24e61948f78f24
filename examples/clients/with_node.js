// Read scores with node-pg, which takes the address from the variables PGHOST, PGPORT, PGUSER and PGDATABASE.

const { Client } = require("pg");

const query = `
  SELECT s.id, p.area
  FROM sides s JOIN ml.triangle p USING (a, b, c)
  WHERE s.id <= $1
  ORDER BY s.id`;

async function main() {
  const client = new Client();
  await client.connect();
  try {
    const { rows } = await client.query(query, [3]);
    for (const { id, area } of rows) console.log(id, area);
  } finally {
    await client.end();
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
