use super::*;

/// Shows what a message of a program gives beside the header.
fn fields(line: &str) -> String {
    let decoded = decode(&record(line.as_bytes(), Framing::Record, RECEIVED_AT, None), SourceOptions::default());
    let event = decoded.events.first().unwrap();
    let shown = event.fields.iter().filter_map(|(name, value, _)| {
        let name = name.text();
        (!["host", "program", "pid", "message"].contains(&&*name)).then(|| format!("{name}={value}"))
    });
    shown.collect::<Vec<_>>().join(" | ")
}

/// Each message of the program with what it gives.
#[track_caller]
fn check(program: &str, messages: &str, expect: Expect) {
    let shown: String = messages
        .lines()
        .map(|message| fields(&format!("Jan  5 14:00:00 web {program}[7]: {message}")) + "\n")
        .collect();
    expect.assert_eq(&shown);
}

#[track_caller]
fn check_line(line: &str, expect: Expect) {
    expect.assert_eq(&show(&decode(
        &record(line.as_bytes(), Framing::Record, RECEIVED_AT, None),
        SourceOptions::default(),
    )));
}

#[test]
fn syslog_headers() {
    check_line(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su 12 ID47 [x@1 a=\"b\\]\"] \u{feff}'su root' failed",
        expect![[r#"
            2003-10-11T22:14:15.003Z Declared linux/-/su
              host=mymachine.example.com
              program=su
              pid=12
              message_id=ID47
              facility=auth
              syslog_severity=crit
              message='su root' failed
              event_type=su_denied
              target_user=root
              host:mymachine.example.com
              user:root
        "#]],
    );
    check_line(
        "<13>Jan  5 13:00:00 web backup[9]: done",
        expect![[r#"
            2026-01-05T13:00:00Z Assumed linux/-/backup
              host=web
              program=backup
              pid=9
              facility=user
              syslog_severity=notice
              message=done
              host:web
        "#]],
    );
    check_line(
        "Jan  5 13:00:00 web kernel: eth0: up",
        expect![[r#"
        2026-01-05T13:00:00Z Assumed linux/-/kernel
          host=web
          program=kernel
          message=eth0: up
          host:web
    "#]],
    );
    check_line(
        "2026-01-05T13:00:00.123456+01:00 web CRON[9]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
        expect![[r#"
        2026-01-05T12:00:00.123456Z Declared linux/-/cron
          host=web
          program=CRON
          pid=9
          message=pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)
          user=root
          pam_service=cron
          event_type=session_opened
          host:web
          user:root
    "#]],
    );
    check_line(
        "<13>no time here",
        expect![[r#"
            2026-01-05T14:00:00Z Received linux/-/-
              facility=user
              syslog_severity=notice
              message=no time here
        "#]],
    );
    check_line(
        "Jan  5 13:00:00 prog[3]: local",
        expect![[r#"
        2026-01-05T13:00:00Z Assumed linux/-/prog
          program=prog
          pid=3
          message=local
    "#]],
    );
    check_line(
        "just some text",
        expect![[r#"
        2026-01-05T14:00:00Z Received -/-/-
          message=just some text
    "#]],
    );
    check_line(
        "[2025-07-17 13:17:11,562]  WARN {cps.web:1475} Login failed",
        expect![[r#"
        2025-07-17T13:17:11.562Z Assumed -/-/-
          message=[2025-07-17 13:17:11,562]  WARN {cps.web:1475} Login failed
    "#]],
    );
    check_line(
        "2023-04-23 22:07:05.311 -05:00 [WRN] Failed login",
        expect![[r#"
        2023-04-24T03:07:05.311Z Declared -/-/-
          message=2023-04-23 22:07:05.311 -05:00 [WRN] Failed login
    "#]],
    );
}

#[test]
fn openssh() {
    check(
        "sshd",
        "\
Failed password for root from 10.0.0.5 port 51432 ssh2
Failed password for invalid user a from 6.6.6.6 port 1 from 10.0.0.5 port 51432 ssh2
Failed password for invalid user  from 10.0.0.5 port 1 ssh2
Failed none for invalid user 0101 from 5.188.10.180 port 1 ssh2
Accepted publickey for alice from 2001:db8::7 port 56296 ssh2: RSA SHA256:1M4R
Accepted keyboard-interactive/pam for bob from 10.0.0.5 port 22 ssh2
Invalid user admin from 10.0.0.5 port 4
Invalid user admin from 10.0.0.5
error: maximum authentication attempts exceeded for invalid user x from 10.0.0.5 port 4 ssh2 [preauth]
message repeated 5 times: [ Failed password for root from 10.0.0.5 port 51432 ssh2]
pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=10.0.0.5  user=root
PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=10.0.0.5  user=root
Connection closed by authenticating user root 10.0.0.5 port 5 [preauth]
Connection closed by invalid user a b 10.0.0.5 port 5 [preauth]
Connection closed by 10.0.0.5 [preauth]
Connection reset by 10.0.0.5 port 5
Disconnected from user alice 10.0.0.5 port 5
Received disconnect from 10.0.0.5: 11: Bye Bye [preauth]
Received disconnect from 10.0.0.5 port 5:11: disconnected by user
Disconnecting authenticating user root 10.0.0.5 port 5: Too many authentication failures [preauth]
User root from 10.0.0.5 not allowed because not listed in AllowUsers
reverse mapping checking getaddrinfo for ns.example [173.234.31.186] failed - POSSIBLE BREAK-IN ATTEMPT!
Unable to negotiate with 10.0.0.5 port 45626: no matching MAC found. Their offer: x [preauth]
Did not receive identification string from 10.0.0.5
pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)
pam_unix(sshd:session): session closed for user alice
Server listening on 0.0.0.0 port 22.
drop connection #10 from [10.0.0.5]:55 on [10.0.0.1]:22 past MaxStartups
srclimit_penalise: ipv4: new 10.0.0.5/32 deferred penalty of 10 seconds for penalty: connections without attempting authentication
Address 10.0.0.5 maps to x.example, but this does not map back to the address - POSSIBLE BREAK-IN ATTEMPT!
Nasty PTR record \"6.6.6.6\" is set up for 10.0.0.5, ignoring
refused connect from x.example (10.0.0.5)
fatal: Read error from remote host 10.0.0.5: Connection reset by peer
fatal: Read from remote host 10.0.0.5: Connection reset by peer
ssh_dispatch_run_fatal: Connection from authenticating user root 10.0.0.5 port 22: message authentication code incorrect [preauth]
fatal: Write failed: Connection reset by peer [preauth]
Access denied for user bob by PAM account configuration [preauth]
pam_faillock(sshd:auth): Consecutive login failures for user bob account temporarily locked
pam_tally2(sshd:auth): user bob (1000) tally 6, deny 5",
        expect![[r#"
            event_type=authentication_failed | user=root | auth_method=password | source_ip=10.0.0.5 | source_port=51432
            event_type=authentication_failed | user=a from 6.6.6.6 port 1 | auth_method=password | source_ip=10.0.0.5 | source_port=51432
            event_type=authentication_failed | auth_method=password | source_ip=10.0.0.5 | source_port=1
            event_type=authentication_failed | user=0101 | auth_method=none | source_ip=5.188.10.180 | source_port=1
            event_type=authentication_succeeded | user=alice | auth_method=publickey | source_ip=2001:db8::7 | source_port=56296
            event_type=authentication_succeeded | user=bob | auth_method=keyboard-interactive/pam | source_ip=10.0.0.5 | source_port=22
            event_type=invalid_user | user=admin | source_ip=10.0.0.5 | source_port=4
            event_type=invalid_user | user=admin | source_ip=10.0.0.5
            event_type=authentication_attempts_exceeded | user=x | source_ip=10.0.0.5 | source_port=4
            repeats=5 | event_type=authentication_failed | user=root | auth_method=password | source_ip=10.0.0.5 | source_port=51432
            tty=ssh | source_ip=10.0.0.5 | user=root | pam_service=sshd | event_type=pam_authentication_failed
            tty=ssh | source_ip=10.0.0.5 | user=root | event_type=pam_authentication_failed
            event_type=connection_closed | user=root | source_ip=10.0.0.5 | source_port=5
            event_type=connection_closed | user=a b | source_ip=10.0.0.5 | source_port=5
            event_type=connection_closed | source_ip=10.0.0.5
            event_type=connection_closed | source_ip=10.0.0.5 | source_port=5
            event_type=disconnected | user=alice | source_ip=10.0.0.5 | source_port=5
            event_type=disconnected | reason=Bye Bye | source_ip=10.0.0.5
            event_type=disconnected | reason=disconnected by user | source_ip=10.0.0.5 | source_port=5
            event_type=disconnected | user=root | reason=Too many authentication failures | source_ip=10.0.0.5 | source_port=5
            event_type=user_not_allowed | user=root | reason=not listed in AllowUsers | source_ip=10.0.0.5
            event_type=reverse_mapping_failed | source_ip=173.234.31.186
            event_type=protocol_error | reason=no matching MAC found. Their offer: x | source_ip=10.0.0.5 | source_port=45626
            event_type=protocol_error | source_ip=10.0.0.5
            user=alice | pam_service=sshd | event_type=session_opened
            user=alice | pam_service=sshd | event_type=session_closed
            event_type=server_started
            event_type=connection_refused | reason=past MaxStartups | source_ip=10.0.0.5 | source_port=55
            event_type=source_penalised | reason=connections without attempting authentication | source_ip=10.0.0.5
            event_type=reverse_mapping_failed | source_ip=10.0.0.5
            event_type=reverse_mapping_failed | source_ip=10.0.0.5
            event_type=connection_refused | source_ip=10.0.0.5
            event_type=connection_closed | reason=Connection reset by peer | source_ip=10.0.0.5
            event_type=connection_closed | reason=Connection reset by peer | source_ip=10.0.0.5
            event_type=protocol_error | user=root | reason=message authentication code incorrect | source_ip=10.0.0.5 | source_port=22
            event_type=connection_closed | reason=Write failed: Connection reset by peer
            event_type=user_not_allowed | user=bob | reason=account configuration
            user=bob | pam_service=sshd | event_type=account_locked
            user=bob | pam_service=sshd | event_type=account_locked
        "#]],
    );
    check_line(
        "Jan  5 13:00:00 web sshd-session[77]: Failed password for root from 10.0.0.5 port 51432 ssh2",
        expect![[r#"
        2026-01-05T13:00:00Z Assumed linux/-/sshd
          host=web
          program=sshd-session
          pid=77
          message=Failed password for root from 10.0.0.5 port 51432 ssh2
          event_type=authentication_failed
          user=root
          auth_method=password
          source_ip=10.0.0.5
          source_port=51432
          host:web
          user:root
          address:10.0.0.5
    "#]],
    );
}

#[test]
fn sudo() {
    check(
        "sudo",
        "\
   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/sh -c 'a ; b'
 mallory : user NOT in sudoers ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh
 mallory : command not allowed ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh
 mallory : 3 incorrect password attempts ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh
pam_unix(sudo:auth): authentication failure; logname=al uid=1000 euid=0 tty=/dev/pts/0 ruser=alice rhost=  user=alice
pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)
pam_unix(sudo:session): session closed for user root",
        expect![[r#"
    user=alice | tty=pts/0 | pwd=/home/alice | USER=root | target_user=root | command=/bin/sh -c 'a ; b' | event_type=sudo_command
    user=mallory | tty=pts/1 | pwd=/ | USER=root | target_user=root | command=/bin/sh | event_type=sudo_denied | reason=user NOT in sudoers
    user=mallory | tty=pts/1 | pwd=/ | USER=root | target_user=root | command=/bin/sh | event_type=sudo_denied | reason=command not allowed
    user=mallory | tty=pts/1 | pwd=/ | USER=root | target_user=root | command=/bin/sh | event_type=sudo_denied | reason=3 incorrect password attempts
    event_type=sudo_denied | reason=authentication failure | user=alice | tty=/dev/pts/0
    user=alice | target_user=root | pam_service=sudo | event_type=session_opened
    user=root | pam_service=sudo | event_type=session_closed
"#]],
    );
}

#[test]
fn web_servers() {
    check_line(
        r#"127.0.0.1 - bob [29/Sep/2021:17:29:58 +0200] "GET /a/../b?x=1&y=%20 HTTP/1.1" 404 162 "-" "curl/7 \"q\"""#,
        expect![[r#"
        2021-09-29T15:29:58Z Declared -/webserver/-
          c-ip=127.0.0.1
          source_ip=127.0.0.1
          cs-username=bob
          request=GET /a/../b?x=1&y=%20 HTTP/1.1
          event_type=http_request
          cs-method=GET
          cs-uri=/a/../b?x=1&y=%20
          c-uri=/a/../b?x=1&y=%20
          cs-uri-stem=/a/../b
          path=/a/../b
          cs-uri-query=x=1&y=%20
          cs-uri-query=/a/../b?x=1&y=%20
          cs-version=HTTP/1.1
          sc-status=404
          status=404
          sc-bytes=162
          cs-referer=-
          cs-user-agent=curl/7 \"q\"
          c-useragent=curl/7 \"q\"
          user:bob
          address:127.0.0.1
    "#]],
    );
    check_line(
        r#"memze.ro 23.94.26.138 - - [08/Oct/2021:17:09:03 +0200] "GET /x HTTP/1.1" 400 166"#,
        expect![[r#"
        2021-10-08T15:09:03Z Declared -/webserver/-
          c-ip=23.94.26.138
          source_ip=23.94.26.138
          cs-username=-
          request=GET /x HTTP/1.1
          event_type=http_request
          cs-method=GET
          cs-uri=/x
          c-uri=/x
          cs-uri-stem=/x
          path=/x
          cs-uri-query=/x
          cs-version=HTTP/1.1
          sc-status=400
          status=400
          sc-bytes=166
          cs-host=memze.ro
          address:23.94.26.138
          domain:memze.ro
    "#]],
    );
    check_line(
        r#"1.2.3.4 - - [29/Jul/2023:10:26:06 -0700] "Gh0st\xAD" 400 157 "-" "-""#,
        expect![[r#"
        2023-07-29T17:26:06Z Declared -/webserver/-
          c-ip=1.2.3.4
          source_ip=1.2.3.4
          cs-username=-
          request=Gh0st\xAD
          event_type=http_request
          sc-status=400
          status=400
          sc-bytes=157
          cs-referer=-
          cs-user-agent=-
          c-useragent=-
          address:1.2.3.4
    "#]],
    );
    check_line(
        r#"<190>Jan  5 13:00:00 web nginx: 10.0.0.5 - - [05/Jan/2026:13:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "nikto""#,
        expect![[r#"
            2026-01-05T13:00:00Z Declared -/webserver/nginx
              host=web
              program=nginx
              facility=local7
              syslog_severity=info
              message=10.0.0.5 - - [05/Jan/2026:13:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "nikto"
              c-ip=10.0.0.5
              source_ip=10.0.0.5
              cs-username=-
              request=GET / HTTP/1.1
              event_type=http_request
              cs-method=GET
              cs-uri=/
              c-uri=/
              cs-uri-stem=/
              path=/
              cs-uri-query=/
              cs-version=HTTP/1.1
              sc-status=200
              status=200
              sc-bytes=1
              cs-referer=-
              cs-user-agent=nikto
              c-useragent=nikto
              host:web
              address:10.0.0.5
        "#]],
    );
    check_line(
        "[Wed Jul 05 09:19:24.428126 2023] [proxy_fcgi:error] [pid 1:tid 2] [client 33.202.142.97:55309] AH01071: x",
        expect![[r#"
        2023-07-05T09:19:24.428126Z Assumed -/-/apache
          message=[pid 1:tid 2] [client 33.202.142.97:55309] AH01071: x
          level=error
          source_ip=33.202.142.97
          address:33.202.142.97
    "#]],
    );
    check_line(
        r#"2022/04/02 13:39:51 [info] 8#8: *6631 client login failed, client: 5.34.207.182, server: 0.0.0.0:25"#,
        expect![[r#"
            2022-04-02T13:39:51Z Assumed -/-/nginx
              message=8#8: *6631 client login failed, client: 5.34.207.182, server: 0.0.0.0:25
              level=info
              source_ip=5.34.207.182
              event_type=authentication_failed
              address:5.34.207.182
        "#]],
    );
}
