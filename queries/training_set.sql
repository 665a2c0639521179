-- What triage learns from: judged alerts with the features that were served last before anybody judged them, oldest first.
-- One label per alert: the last, unless it was taken back; of an author 200 verdicts of a day (UTC) count, the first.
WITH said AS (
    SELECT *, min(seq) OVER (PARTITION BY tenant, alert_id) AS judged_from,
           row_number() OVER (PARTITION BY tenant, alert_id ORDER BY seq DESC) AS newest,
           row_number() OVER (PARTITION BY tenant, author, given, date_trunc('day', at) ORDER BY seq) AS of_author
    FROM verdicts
), labels AS (
    SELECT tenant, alert_id, judgement, judged_from FROM said WHERE newest = 1 AND given = 1 AND of_author <= 200
), served AS (
    SELECT f.*, l.judgement, row_number() OVER (PARTITION BY f.tenant, f.subject ORDER BY f.seq DESC) AS newest
    FROM features f JOIN labels l ON f.tenant = l.tenant AND f.subject = l.alert_id AND f.seq < l.judged_from
    WHERE f.subject_kind = 'alert'
)
SELECT subject AS alert_id, time, rule_id, signature, judgement AS verdict, recipe, features
FROM served
WHERE newest = 1
ORDER BY time, alert_id
