"""The bare SQL that does the same work on the rows as the library, to compare with."""

# Raw SQL, because compiling a Core statement would be measured, too.
INSERT = """
INSERT INTO {} (worker, args)
SELECT worker, args FROM jsonb_to_recordset(%s::jsonb) AS job (worker text, args jsonb)
RETURNING id
"""
NEXT = """
WITH done AS (
    UPDATE {0} SET state = 'completed', completed_at = timezone('UTC', now())
    WHERE id = ANY(%(done)s) AND state = 'executing'
), next AS (
    SELECT id FROM {0} WHERE state = 'available' AND queue = 'default'
    ORDER BY priority, scheduled_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE {0}
SET state = 'executing', attempt = attempt + 1, attempted_at = timezone('UTC', now()),
    attempted_by = ARRAY['bare']
WHERE id = ANY(ARRAY(SELECT id FROM next))
RETURNING {0}.*
"""
FEED = """
INSERT INTO {} (worker, args)
SELECT %s, jsonb_build_object('number', n) FROM generate_series(1, %s) n
"""
