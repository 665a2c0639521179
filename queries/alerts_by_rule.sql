-- Alerts by rule, in the state of their newest revision, the most severe first.
SELECT rule_id, title, level, state, count(*) AS alerts, sum("count") AS members, max(score) AS score,
       min("first") AS "first", max("last") AS "last"
FROM (
    SELECT *, row_number() OVER (PARTITION BY tenant, alert_id ORDER BY epoch DESC, revision DESC) AS newest
    FROM alerts
)
WHERE newest = 1
GROUP BY rule_id, title, level, state
ORDER BY score DESC, alerts DESC, rule_id, state
