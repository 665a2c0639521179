-- What people ask when they hunt, for scripts/query-speed: each after a line `-- NAME: meaning`. $host and the like are values of the
-- data, chosen by the script. Only what DataFusion, DuckDB and ClickHouse all understand; the order of an answer does not count.

-- lookup_host: what a host did in an hour
SELECT time, event_id, event_code, process_executable FROM events
WHERE host = '$host' AND time >= '$hour' AND time < '$hour_end';

-- lookup_user: what a user did on a day, by kind
SELECT event_code, count(*) AS events, min(time) AS first, max(time) AS last FROM events
WHERE user_entity = '$user' AND time >= '$day' AND time < '$day_end' GROUP BY event_code;

-- lookup_address: where an address was seen on a day
SELECT host, count(*) AS events FROM events
WHERE address = '$address' AND time >= '$day' AND time < '$day_end' GROUP BY host;

-- lookup_hash: every event with a file's hash, over all time
SELECT time, event_id, host, process_executable FROM events WHERE file_hash = '$hash';

-- lookup_process: one program on one host in six hours
SELECT time, event_id, process_command_line FROM events
WHERE host = '$host' AND process = '$process' AND time >= '$hour' AND time < '$six_hours_end';

-- text_raw: a word anywhere in the records of a day
SELECT host, count(*) AS events FROM events
WHERE time >= '$day' AND time < '$day_end' AND raw LIKE '%$word%' GROUP BY host;

-- text_command: encoded commands of three days
SELECT time, event_id, host, process_command_line FROM events
WHERE time >= '$day' AND time < '$three_days_end'
  AND lower(process_command_line) LIKE '%powershell%' AND lower(process_command_line) LIKE '%-enc%';

-- group_kinds: how many events of which kind there are by provider
SELECT event_provider, event_code, count(*) AS events FROM events GROUP BY event_provider, event_code;

-- group_days: busy hosts of a day by kind of log
SELECT host, service, count(*) AS events FROM events
WHERE time >= '$day' AND time < '$day_end' GROUP BY host, service HAVING count(*) > 100;

-- join_assets: events of known hosts by owner and criticality
WITH assets AS ($assets)
SELECT assets.owner, assets.criticality, count(*) AS events, count(DISTINCT events.host) AS hosts
FROM events JOIN assets ON events.host = assets.host GROUP BY assets.owner, assets.criticality;

-- sequence: a program starts, and within a minute the same program talks to the network from the same host
WITH started AS (SELECT host, process_executable, process_pid, time FROM events WHERE event_code = '1'),
connected AS (SELECT host, process_executable, process_pid, destination_ip, time FROM events WHERE event_code = '3')
SELECT started.host, started.process_executable, connected.destination_ip, count(*) AS times
FROM started JOIN connected ON started.host = connected.host AND started.process_pid = connected.process_pid
  AND started.process_executable = connected.process_executable
WHERE connected.time >= started.time AND connected.time < started.time + INTERVAL '60' SECOND
GROUP BY started.host, started.process_executable, connected.destination_ip;

-- top_programs: the programs that are met most
SELECT process, count(*) AS events FROM events WHERE process IS NOT NULL GROUP BY process ORDER BY events DESC, process LIMIT 20;

-- top_destinations: destinations by how many hosts talk to them
SELECT destination_ip, count(DISTINCT host) AS hosts, count(*) AS events FROM events WHERE destination_ip IS NOT NULL
GROUP BY destination_ip ORDER BY hosts DESC, events DESC, destination_ip LIMIT 20;

-- distinct_entities: how many hosts, users, addresses and programs there are
SELECT count(DISTINCT host) AS hosts, count(DISTINCT user_entity) AS users, count(DISTINCT address) AS addresses,
  count(DISTINCT process) AS processes FROM events;

-- distinct_rare: programs that few hosts run, with who started them
SELECT process_parent_executable, process_executable, count(DISTINCT host) AS hosts, count(*) AS events FROM events
WHERE process_parent_executable IS NOT NULL GROUP BY process_parent_executable, process_executable HAVING count(DISTINCT host) <= 2;
