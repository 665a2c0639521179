-- Alerts by tactic of ATT&CK and level, as their newest revisions stand; an alert with tags of several tactics counts in each.
SELECT tactic, level, count(DISTINCT alert_id) AS alerts, max(score) AS score
FROM (
    SELECT alert_id, level, score, attack_tactic(tag) AS tactic
    FROM (
        SELECT alert_id, level, score, unnest(tags) AS tag
        FROM (
            SELECT *, row_number() OVER (PARTITION BY tenant, alert_id ORDER BY epoch DESC, revision DESC) AS newest
            FROM alerts
        )
        WHERE newest = 1 AND state IN ('open', 'sealed')
    )
)
WHERE tactic IS NOT NULL
GROUP BY tactic, level
ORDER BY alerts DESC, tactic, level
