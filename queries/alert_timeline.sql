-- What became of each alert: its revisions in the order in which they were made.
SELECT thread, revision, epoch, revised_at, event, state, reason, rule_id, "count", group_fields
FROM alerts
ORDER BY thread, revision, epoch
