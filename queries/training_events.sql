-- What urls and flows learn from, oldest first: events that a model called positive, with what it was given, and what people
-- said of the alert that came of them; beside them ordinary events, which nobody looked at. Labels count as in training_set:
-- the last of an alert; of an author 200 a day (UTC).
WITH said AS (
    SELECT *, min(seq) OVER (PARTITION BY tenant, alert_id) AS judged_from,
           row_number() OVER (PARTITION BY tenant, alert_id ORDER BY seq DESC) AS newest,
           row_number() OVER (PARTITION BY tenant, author, given, date_trunc('day', at) ORDER BY seq) AS of_author
    FROM verdicts
), revised AS (
    SELECT tenant, alert_id, rule_id, group_fields, first, last,
           row_number() OVER (PARTITION BY tenant, alert_id ORDER BY epoch DESC, revision DESC) AS newest
    FROM alerts WHERE rule_id IN ('model-urls', 'model-flows')
), judged AS (
    SELECT r.tenant, r.alert_id, r.rule_id, r.group_fields, r.first, r.last, s.judgement, s.judged_from
    FROM revised r JOIN said s ON r.tenant = s.tenant AND r.alert_id = s.alert_id
    WHERE r.newest = 1 AND s.newest = 1 AND s.given = 1 AND s.of_author <= 200
), answered AS (
    SELECT tenant, subject, seq, model, version, count(*) AS answers,
           sum(CASE WHEN verdict = 'true' THEN 1 ELSE 0 END) AS positive,
           sum(CASE WHEN verdict = 'false' THEN 1 ELSE 0 END) AS negative
    FROM predictions WHERE subject_kind = 'event' GROUP BY tenant, subject, seq, model, version
), found AS (
    -- Alerts are told in whole seconds.
    SELECT DISTINCT d.tenant, d.id, j.alert_id, j.rule_id, j.judgement, j.judged_from,
           json_get(j.group_fields, 'model_version') AS version
    FROM detections d JOIN judged j ON d.tenant = j.tenant AND d.rule_id = j.rule_id
    WHERE json_get(d.items, '0.group') = j.group_fields
      AND d.time >= j.first AND d.time < j.last + INTERVAL '1 second'
), labelled AS (
    -- An event of several URLs, of which some were called positive and some not, does not say which: it is left out.
    SELECT f.tenant, f.subject, f.time, a.model, n.alert_id, n.judgement AS verdict, f.recipe, f.features
    FROM found n
    JOIN answered a ON a.tenant = n.tenant AND a.subject = n.id AND concat('model-', a.model) = n.rule_id
        AND a.version = n.version AND a.answers = a.positive AND a.seq < n.judged_from
    JOIN features f ON f.tenant = a.tenant AND f.subject = a.subject AND f.seq = a.seq AND f.subject_kind = 'event'
), common AS (
    SELECT tenant, subject, seq, model FROM answered
    GROUP BY tenant, subject, seq, model HAVING sum(answers) = sum(negative)
), ordinary AS (
    SELECT DISTINCT f.tenant, f.subject, f.time, c.model, f.recipe, f.features
    FROM common c
    JOIN features f ON f.tenant = c.tenant AND f.subject = c.subject AND f.seq = c.seq AND f.subject_kind = 'event'
), recent AS (
    SELECT *, row_number() OVER (PARTITION BY model ORDER BY time DESC, subject DESC, features DESC) AS newest FROM ordinary
)
SELECT DISTINCT subject AS event_id, time, model, alert_id, verdict, recipe, features FROM labelled
UNION ALL
-- Of what every model called negative a sample is recorded: without it a training would know nothing but alarms, and could
-- call anything else positive. It is taken for benign; what it holds of attacks is what was missed before.
SELECT subject, time, model, NULL, 'unjudged', recipe, features FROM recent WHERE newest <= 20000
ORDER BY time, event_id, features, model, alert_id
