-- What was refused, by source and reason, with an example.
SELECT source, code, count(*) AS records, min(received_at) AS "first", max(received_at) AS "last",
       min(reason) AS example
FROM rejects
GROUP BY source, code
ORDER BY records DESC, source, code
