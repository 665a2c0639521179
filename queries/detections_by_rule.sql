-- Detections by rule: events that met it, hosts and users concerned, first and last.
SELECT rule_id, count(DISTINCT id) AS events, count(DISTINCT host) AS hosts, count(DISTINCT user) AS users,
       min(time) AS "first", max(time) AS "last"
FROM detections
GROUP BY rule_id
ORDER BY events DESC, rule_id
