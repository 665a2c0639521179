//! Text logs from end to end: a line as its program writes it, the decoder's event, the public rules that it meets.
//!
//! One line at least for each kind of text that public rules are written for. Lines are made after the published formats,
//! with what the rule is about in them; that the decoder gives the right fields is what is tested.

use std::sync::Arc;

use cf_ingest::{Decoded, Decoder, SourceOptions, SourceTable};
use cf_sigma::Scanner;
use cf_types::{Origin, Position, Record, Tenant, Time, record::Framing};

use super::world::public_rules;

/// The titles of the public rules that a line meets, by a source with these words.
fn titles(scanner: &mut Scanner, line: &str, product: &str, service: &str) -> String {
    let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let options = SourceOptions { product: word(product), service: word(service), ..SourceOptions::default() };
    let table = SourceTable::new(&[("test".to_owned(), options)].into()).unwrap();
    let origin = Origin {
        tenant: Tenant::default(),
        source: "test".into(),
        received_at: Time::from_seconds(1_767_618_000),
        year: None,
        framing: Framing::Record,
    };
    let bytes = bytes::Bytes::copy_from_slice(line.as_bytes());
    let record = Record { origin: Arc::new(origin), position: Position::default(), bytes };
    let mut decoded = Decoded::default();
    Decoder::new(Arc::new(table)).decode(&record, &mut decoded);
    let event = decoded.events.first().unwrap();
    let mut hits = Vec::new();
    scanner.scan(event, &mut hits);
    let mut titles: Vec<String> =
        hits.iter().map(|rule| scanner.rules().rule(*rule).unwrap().title.to_string()).collect();
    titles.sort();
    titles.join("; ")
}

#[test]
fn a_public_rule_of_each_kind_fires_on_its_text_log() {
    let Some(public) = public_rules() else { return };
    let mut scanner = Scanner::new(Arc::clone(&public.rules));
    let mut missed = Vec::new();
    for line in LINES.lines().filter(|line| !line.is_empty()) {
        let (wanted, line) = line.split_once(" <- ").unwrap();
        let (product, service) = if wanted == "DNS TOR Proxies" { ("zeek", "dns") } else { ("", "") };
        let found = titles(&mut scanner, line, product, service);
        if !found.split("; ").any(|title| title == wanted) {
            missed.push(format!("{wanted}: {line}\n   found: {found}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// `title of the rule <- line`
const LINES: &str = r#"
Overwriting the File with Dev Zero or Null <- type=EXECVE msg=audit(1604996384.965:93777): argc=4 a0="dd" a1="if=/dev/zero" a2="bs=1" a3="count=1"
Creation Of An User Account <- Jan  5 13:00:00 web audispd: type=ADD_USER msg=audit(1604996384.965:4): pid=9 uid=0 auid=1000 msg='op=adding user id=1002 exe="/usr/sbin/useradd" hostname=web addr=? terminal=pts/0 res=success'
Webshell Remote Command Execution <- type=SYSCALL msg=audit(1604996384.965:2): arch=c000003e syscall=59 success=yes exit=0 ppid=1 pid=2 auid=4294967295 uid=33 euid=33 comm="id" exe="/usr/bin/id" key=(null)
Linux AF_ALG Socket Creation - Kernel Crypto API Exploit Indicator <- type=SYSCALL msg=audit(1604996384.965:2): arch=c000003e syscall=41 success=yes exit=3 a0=26 a1=5 a2=0 a3=0 comm="x" exe="/tmp/x" key="af_alg_detect"
Crontab Enumeration <- Jan  5 13:00:00 web sysmon: <Event><System><Provider Name="Linux-Sysmon"/><EventID>1</EventID><TimeCreated SystemTime="2026-01-05T13:00:00.1Z"/><Channel>Linux-Sysmon/Operational</Channel><Computer>web</Computer></System><EventData><Data Name="Image">/usr/bin/crontab</Data><Data Name="CommandLine">crontab -l</Data></EventData></Event>
SSHD Error Message CVE-2018-15473 <- Jan  5 13:00:00 web sshd[9]: error: buffer_get_ret: trying to get more bytes 1907 than in buffer 308 [preauth]
Sudo Privilege Escalation CVE-2019-14287 - Builtin <- Jan  5 13:00:00 web sudo: alice : TTY=pts/0 ; PWD=/home/alice ; USER=#-1 ; COMMAND=/bin/bash
Modifying Crontab <- Jan  5 13:00:00 web crontab[9]: (mallory) REPLACE (mallory)
PwnKit Local Privilege Escalation <- Jan  5 13:00:00 web pkexec[9]: alice: The value for environment variable XAUTHORITY contains suspicious content [USER=root] [TTY=/dev/pts/0] [CWD=/home/alice] [COMMAND=/usr/bin/x]
Relevant ClamAV Message <- Jan  5 13:00:00 web clamd[9]: /tmp/x: Win.Trojan.Agent-1 FOUND
Suspicious VSFTPD Error Messages <- Jan  5 13:00:00 web vsftpd[9]: Connection refused: too many sessions for this address.
Guacamole Two Users Sharing Session Anomaly <- Jan  5 13:00:00 web guacamole[9]: User "@x" joined connection "$y" (2 users now present)
Path Traversal Exploitation Attempts <- 127.0.0.1 - - [29/Sep/2021:17:29:58 +0200] "GET /../../../../../lib/password HTTP/1.1" 404 162 "-" "curl/7.68.0"
Path Traversal Exploitation Attempts <- Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 "GET /../../../../../lib/password HTTP/1.1"
Path Traversal Exploitation Attempts <- 2026-01-05 13:00:00 10.0.0.1 GET /a.aspx f=../../../../../lib/password 443 - 203.0.113.9 Mozilla/5.0+(Windows) - 200 0 0 15
Apache Segmentation Fault <- [Wed Jul 05 09:19:24.428126 2023] [core:notice] [pid 1] AH00051: child pid 9 exit signal Segmentation Fault (11), possible coredump in /etc/apache2
Nginx Core Dump <- 2022/04/02 13:39:51 [alert] 8#8: worker process 9 exited on signal 6 (core dumped)
Download from Suspicious Dyndns Hosts <- 1286536309.450    192 192.168.0.68 TCP_MISS/200 507 GET http://x.dyndns.org/a.exe - DIRECT/203.0.113.9 text/html
Rclone Activity via Proxy <- CEF:0|Zscaler|NSSWeblog|6|Allowed|x|3|act=Allowed src=10.0.0.7 request=http://evil.example/a requestMethod=GET requestClientApplication=rclone/v1.60
Telegram API Access <- <14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,012801096514,THREAT,url,2305,2026/01/05 12:59:59,10.0.0.5,203.0.113.9,0.0.0.0,0.0.0.0,web,dom\bob,,web-browsing,vsys1,trust,untrust,ethernet1/2,ethernet1/1,default,,1234,1,4000,80,0,0,0x0,tcp,alert,"http://api.telegram.org/bot1",(9999),x,informational,client-to-server,1,0,US,US,,,,,,,"curl/8"
Telegram Bot API Request <- Jan  5 13:00:00 ns dnsmasq[9]: query[A] api.telegram.org from 10.0.0.5
Wannacry Killswitch Domain <- 05-Jan-2026 13:00:00.123 queries: info: client @0x7f95c00ec4d0 10.0.0.5#53124 (x): query: ifferfsodp9ifjaposdfjhgosurijfaewrwergwea.com IN A +E(0)K (10.0.0.1)
Cobalt Strike DNS Beaconing <- Jan  5 13:00:00 ns unbound: [1234:0] info: 10.0.0.5 aaa.stage.16.example.com. TXT IN
Cleartext Protocol Usage <- <189>date=2026-01-05 time=13:00:00 devname="fw1" logid="0000000013" type="traffic" subtype="forward" srcip=10.0.0.5 srcport=4000 dstip=203.0.113.9 dstport=23 proto=6 action="accept"
Cleartext Protocol Usage <- Jan  5 13:00:00 web kernel: [UFW ALLOW] IN=eth0 OUT= MAC=aa SRC=1.2.3.4 DST=10.0.0.5 LEN=40 PROTO=TCP SPT=40000 DPT=23
Cleartext Protocol Usage <- <166>Jan 05 2026 13:00:00 fw : %ASA-6-302013: Built inbound TCP connection 11 for outside:1.2.3.4/4000 (1.2.3.4/4000) to inside:10.0.0.5/23 (10.0.0.5/23)
Cleartext Protocol Usage <- <14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,0128,TRAFFIC,end,2305,2026/01/05 12:59:59,1.2.3.4,10.0.0.5,0.0.0.0,0.0.0.0,r,,bob,telnet,vsys1,u,t,e1,e2,d,x,1,1,4000,23,0,0,0x1c,tcp,allow,5,2,3,2
Equation Group C2 Communication <- Jan  5 13:00:00 fw filterlog[123]: 5,,,1,igb0,match,pass,out,4,0x0,,64,0,0,DF,6,tcp,60,10.0.0.5,69.42.98.86,40000,443,0,S,1,,65535,,mss
FortiGate - New Local User Created <- <189>date=2026-01-05 time=13:00:00 devname="fw1" logid="0100044547" type="event" subtype="system" action="Add" user="admin" ui="ssh(203.0.113.9)" cfgpath="user.local" cfgobj="x"
Cisco Local Accounts <- <189>30: rtr: Jan  5 13:00:00.123: %PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:username backdoor privilege 15
Cisco BGP Authentication Failures <- <189>31: Jan  5 13:00:00.123: %IP-TCP-3-BADAUTH: Invalid MD5 digest from 10.0.0.1:1000 to 10.0.0.2:179
Huawei BGP Authentication Failures <- <188>Jan  5 2026 13:00:00 hw %%01BGP/3/BGP_AUTH_FAILED(l)[0]:BGP session authentication failed from 10.0.0.1:179
Juniper BGP Missing MD5 <- Jan  5 13:00:00 mx rpd[9]: tcp_auth_ok: Packet from 10.0.0.1:179 missing MD5 digest
Potential CVE-2024-3400 Exploitation - Palo Alto GlobalProtect OS Command Injection <- <14>Jan  5 13:00:00 PA-VM 1,2026/01/05 13:00:00,0128,SYSTEM,globalprotect,2305,2026/01/05 12:59:59,,x,,0,0,general,medium,"failed to unmarshal session(../../../../opt/panlogs/tmp/x)",1,0x0
DNS TOR Proxies <- 1591367999.306059	CMdzit1AMNsmfAIiQc	192.168.4.76	36844	192.168.4.1	53	udp	8555	-	x.tor2web.org	1	C_INTERNET	1	A	0	NOERROR	F	F	T	T	0	-	-	F
"#;
