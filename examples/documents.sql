-- Search by meaning: documents beside their embeddings, which an index finds.
-- Needs schema "ml" (examples/connect.sql) and pgvector.

CREATE EXTENSION IF NOT EXISTS vector;
ALTER FOREIGN TABLE ml.embedder ALTER COLUMN embedding TYPE vector(384);

CREATE TABLE documents (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text      text NOT NULL,
    embedding vector(384)
);

INSERT INTO documents (text, embedding)
SELECT text, embedding
FROM (VALUES
    ('To reset your password, open the settings and choose "forgotten password".'),
    ('Parcels are delivered within three working days.'),
    ('You can return an article within a month and get your money back.'),
    ('We accept credit cards, bank transfers and cash on delivery.'),
    ('Our shop is open from nine to six, and closed on Sundays.'),
    ('The battery of the phone lasts for two days.'),
    ('Wash the jumper by hand in cold water.'),
    ('The bicycle comes in three sizes and four colours.'),
    ('An invoice is sent by e-mail once the order is complete.'),
    ('Gift cards are valid for three years.'),
    ('The hotel has a swimming pool and a sauna.'),
    ('Dogs and cats are welcome in all rooms.'),
    ('Breakfast is served from seven to ten in the garden.'),
    ('The museum shows paintings of the nineteenth century.'),
    ('Trains to the airport leave every fifteen minutes.'),
    ('Tomorrow it will rain in the north and snow in the mountains.'),
    ('Whales are mammals that live in the sea.'),
    ('Bread is made of flour, water, salt and yeast.'),
    ('The orchestra plays a symphony by Beethoven tonight.'),
    ('The striker scored twice in the second half of the match.')
) AS new (text)
NATURAL JOIN ml.embedder;

CREATE INDEX documents_by_meaning ON documents USING hnsw (embedding vector_cosine_ops);

SELECT text
FROM documents
ORDER BY embedding <=> (SELECT embedding FROM ml.embedder WHERE text = 'I cannot log in any more')
LIMIT 5;
