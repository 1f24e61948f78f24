{{ config(materialized="incremental", unique_key="id") }}

SELECT s.id, p.area
FROM {{ source("rows", "sides") }} s
{% if is_incremental() %}
LEFT JOIN {{ this }} scored ON scored.id = s.id
{% endif %}
JOIN {{ source("ml", "triangle") }} p ON p.a = s.a AND p.b = s.b AND p.c = s.c
{% if is_incremental() %}
WHERE scored.id IS NULL
{% endif %}
