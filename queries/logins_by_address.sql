-- OpenSSH log-ins by address: failures, successes, users tried.
SELECT address,
       count(*) FILTER (WHERE raw LIKE '%Failed password%') AS failed,
       count(*) FILTER (WHERE raw LIKE '%Accepted %') AS accepted,
       count(DISTINCT user) AS users,
       min(time) AS "first", max(time) AS "last"
FROM events
WHERE service = 'sshd' AND address IS NOT NULL
GROUP BY address
ORDER BY failed DESC, address
