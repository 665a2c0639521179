-- Events by hour and source.
SELECT date_trunc('hour', time) AS hour, source, count(*) AS events
FROM events
GROUP BY date_trunc('hour', time), source
ORDER BY hour, source
