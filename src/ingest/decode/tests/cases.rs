//! The web and Linux cases of the shared data: which of the sources that each case expects its lines name as entities.

use std::{collections::BTreeSet, path::Path, process::Command};

use super::{real::shared, *};

/// Cases whose lines are JSON, with or without a header before it: the tests of JSON have them.
const JSON_BEHIND_A_HEADER: &[&str] = &["envoy-http-crawl-non_statics", "opensearch-dashboard-bf"];

/// `log type, case: lines, rejects; sources named of those expected; log sources`, one line per case.
fn cases(path: &Path) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("cases.tar");
    std::fs::write(&plain, zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()).unwrap();
    let status = Command::new("tar").arg("xf").arg(&plain).arg("-C").arg(dir.path()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no `tar` to unpack {}", path.display());
        return Vec::new();
    }
    let mut folders: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders.iter().filter_map(|folder| case(folder)).collect()
}

fn case(folder: &Path) -> Option<(String, String)> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    if JSON_BEHIND_A_HEADER.contains(&name) {
        return None;
    }
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let results = expected["results"].as_array().unwrap();
    let wanted: BTreeSet<&str> =
        results.iter().flat_map(|result| result["sources"].as_array().unwrap()).filter_map(|s| s.as_str()).collect();
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    let (mut lines, mut addressed, mut rejects) = (0, 0, 0);
    let (mut named, mut log_sources) = (BTreeSet::new(), BTreeSet::new());
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.ends_with("expected.json") {
            continue;
        }
        for record in file::open(file.to_str().unwrap(), &FileOptions::new(RECEIVED_AT.parse().unwrap())).unwrap() {
            let mut decoded = Decoded::default();
            let record = record.unwrap();
            if record.bytes.starts_with(b"{") {
                continue;
            }
            decoder.decode(&record, &mut decoded);
            lines += 1;
            rejects += decoded.rejects.len();
            for event in decoded.events {
                addressed += usize::from(event.entities.iter().any(|entity| entity.kind == EntityKind::Address));
                named.extend(event.entities.into_iter().map(|entity| entity.value));
                let source = &event.log_source;
                let words = [&source.product, &source.category, &source.service];
                log_sources.insert(words.map(|word| word.as_deref().unwrap_or("-").to_owned()).join("/"));
            }
        }
    }
    let is_named = |source: &&&str| {
        let bare = source.strip_prefix("::ffff:").unwrap_or(source).to_ascii_lowercase();
        named.iter().any(|name| **name == bare)
    };
    let log_type = expected["log_type"].as_str().unwrap().to_owned();
    let shown = format!(
        "{name}: {lines} lines, {addressed} with an address, {rejects} rejects, {} of {} sources; {}\n",
        wanted.iter().filter(is_named).count(),
        wanted.len(),
        log_sources.into_iter().collect::<Vec<_>>().join(" ")
    );
    (lines > 0).then_some((log_type, shown))
}

#[test]
fn web_and_linux_cases() {
    let Some(path) = shared("web_and_linux_cases.tar.zst") else { return };
    let mut cases = cases(&path);
    cases.sort();
    let shown: String = cases.into_iter().map(|(log_type, shown)| format!("{log_type} {shown}")).collect();
    expect![[r#"
        Paperless-ngx paperless-ngx-bf: 42 lines, 42 with an address, 0 rejects, 3 of 3 sources; paperless-ngx/application/-
        Vaultwarden vaultwarden-bf: 28 lines, 28 with an address, 0 rejects, 4 of 4 sources; vaultwarden/application/-
        adguardhome adguardhome-bf: 12 lines, 12 with an address, 0 rejects, 2 of 2 sources; adguardhome/application/-
        apache-guacamole apache-guacamole_bf: 12 lines, 12 with an address, 0 rejects, 1 of 1 sources; guacamole/application/-
        apache-guacamole apache-guacamole_user_enum: 12 lines, 12 with an address, 0 rejects, 1 of 1 sources; guacamole/application/-
        apache2 CVE-2022-26134: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        apache2 CVE-2022-35914: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 CVE-2022-44877: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 CVE-2023-22518: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 CVE-2024-38475: 12 lines, 12 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 apache2-http-sensitive-files: 13 lines, 13 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 netgear_rce: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 zoneminder_cve-39290: 15 lines, 15 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        apache2 zoneminder_cve-39291: 15 lines, 15 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        auditd auditd-postexploit-rm: 10 lines, 0 with an address, 0 rejects, 0 of 1 sources; linux/-/auditd
        authelia authelia-bf: 72 lines, 72 with an address, 0 rejects, 10 of 22 sources; authelia/application/-
        aws-alb aws-alb-http-bad-user-agent: 4 lines, 4 with an address, 0 rejects, 1 of 1 sources; -/webserver/elb
        baikal baikal-bf: 25 lines, 25 with an address, 0 rejects, 4 of 4 sources; -/-/apache
        bitwarden bitwarden-bf: 12 lines, 12 with an address, 0 rejects, 2 of 2 sources; bitwarden/application/-
        bookstack bookstack-bf: 5 lines, 5 with an address, 0 rejects, 1 of 1 sources; -/-/nginx
        bunkerweb bunkerweb-http-path-traversal: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        calibre-web calibre-web-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; calibre-web/application/-
        cas apereo-cas-bf: 17 lines, 17 with an address, 0 rejects, 2 of 2 sources; cas/application/-
        cas apereo-cas-slow-bf: 22 lines, 22 with an address, 0 rejects, 1 of 1 sources; cas/application/-
        couchdb couchdb-logs: 90 lines, 90 with an address, 0 rejects, 1 of 1 sources; -/webserver/couchdb
        cpanel cpanel-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; cpanel/application/-
        cpanel cpanel_bf_attempt: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; cpanel/application/-
        dockge dockge-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; uptime-kuma/application/-
        endlessh endlessh-logs: 111 lines, 102 with an address, 0 rejects, 1 of 1 sources; -/-/- linux/-/endlessh
        exchange-imap exchange-imap-bf: 7 lines, 0 with an address, 0 rejects, 0 of 1 sources; -/-/-
        exchange-pop exchange-pop-bf: 8 lines, 0 with an address, 0 rejects, 0 of 1 sources; -/-/-
        exim exim-spam: 8 lines, 8 with an address, 0 rejects, 2 of 2 sources; linux/-/exim
        fireflyiii fireflyiii-bf: 32 lines, 28 with an address, 0 rejects, 3 of 3 sources; -/-/- fireflyiii/application/-
        fortinet fortinet-vpn-bf: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; fortigate/-/event
        freeswitch freeswitch-acl-reject: 16 lines, 16 with an address, 0 rejects, 1 of 1 sources; freeswitch/application/-
        freeswitch freeswitch-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; freeswitch/application/-
        freeswitch freeswitch-user-enumeration: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; freeswitch/application/-
        gitea gitea-bf: 60 lines, 60 with an address, 0 rejects, 7 of 7 sources; gitea/application/-
        gotify gotify-bf: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; -/webserver/gin
        home-assistant home-assistant: 14 lines, 14 with an address, 0 rejects, 2 of 2 sources; home-assistant/application/-
        immich immich-bf: 7 lines, 7 with an address, 0 rejects, 1 of 1 sources; immich/application/-
        joplin-server joplin-server-bf: 5 lines, 5 with an address, 0 rejects, 1 of 1 sources; joplin/application/-
        keycloak keycloak-slow-bf: 12 lines, 12 with an address, 0 rejects, 1 of 1 sources; keycloak/application/-
        litespeed litespeed-http-sensitive-files: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        mailu-admin mailu-admin-bf: 6 lines, 6 with an address, 0 rejects, 6 of 6 sources; mailu/application/-
        mikrotik mikrotik-scan-multi_ports: 19 lines, 19 with an address, 0 rejects, 1 of 1 sources; mikrotik/firewall/firewall
        modsecurity modsecurity: 10 lines, 10 with an address, 0 rejects, 1 of 1 sources; -/-/apache
        nginx CVE-2022-41697: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx CVE-2024-0012: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        nginx cve_2022_37042: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        nginx fortinet-cve-2018-13379: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx http-admin-interface-probing: 3 lines, 3 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx http-cve-probing: 3 lines, 3 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx http-dos-random-uri: 66 lines, 66 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx http-dos-switching-ua: 15 lines, 15 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx http-generic-test: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx jira_cve-2021-26086: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        nginx nginx-bad-user-agent: 3 lines, 3 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx nginx-cve-2021-41773: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        nginx nginx-http-malformed: 12 lines, 12 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx nginx-http-path-traversal: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx nginx-http-sensitive-files: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx nginx-http-sqli-probing: 16 lines, 16 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx nginx-mail-bf: 11 lines, 11 with an address, 0 rejects, 2 of 2 sources; -/-/nginx
        nginx pulse-secure-sslvpn-cve-2019-11510: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        nginx sap-probing: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; -/webserver/-
        nginx vmware-vcenter-vmsa-2021-0027: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; -/webserver/-
        odoo odoo-bf_user-enum: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; odoo/application/-
        ombi ombi-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; ombi/application/-
        openvpn openvpn-bf: 4 lines, 4 with an address, 0 rejects, 1 of 1 sources; linux/-/openvpn
        proftpd proftpd-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/proftpd
        proxmox-backup-auth proxmox-backup-auth-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; proxmox-backup/application/-
        pterodactyl pterodactyl-wings-bf: 15 lines, 15 with an address, 0 rejects, 1 of 1 sources; pterodactyl/application/-
        sabnzbd sabnzbd-bf: 20 lines, 20 with an address, 0 rejects, 2 of 2 sources; sabnzbd/application/-
        sshesame sshesame: 381 lines, 381 with an address, 0 rejects, 4 of 4 sources; sshesame/application/-
        stirling-pdf stirling-pdf-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; stirling-pdf/application/-
        syslog amavis-blocked: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; linux/-/amavis
        syslog charon-ipsec-bf: 154 lines, 10 with an address, 0 rejects, 1 of 1 sources; linux/-/charon
        syslog charon-ipsec-slow-bf: 154 lines, 10 with an address, 0 rejects, 1 of 1 sources; linux/-/charon
        syslog cowrie_telnet-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/cowrie
        syslog dovecot-slow-bf-user-enum: 4 lines, 4 with an address, 0 rejects, 1 of 1 sources; linux/-/dovecot
        syslog dovecot-time-based-bf-user-enum: 4 lines, 4 with an address, 0 rejects, 1 of 1 sources; linux/-/dovecot
        syslog dovecot-time-based-bf: 4 lines, 4 with an address, 0 rejects, 1 of 1 sources; linux/-/dovecot
        syslog endlessh-syslogs: 24 lines, 24 with an address, 0 rejects, 2 of 2 sources; linux/-/endlessh
        syslog jellyfin-syslog-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; jellyfin/application/-
        syslog lemonldap-ng-bf: 7 lines, 7 with an address, 0 rejects, 1 of 1 sources; lemonldap-ng/application/-
        syslog mailscanner-blacklisted: 1 lines, 1 with an address, 0 rejects, 1 of 1 sources; linux/-/mailscanner
        syslog mailscanner-highscore-spam: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; linux/-/mailscanner
        syslog opnsense-gui-auth: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/opnsense
        syslog pfsense-gui-auth: 9 lines, 9 with an address, 0 rejects, 1 of 1 sources; linux/-/pfsense
        syslog postfix-relay: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; linux/-/postfix
        syslog postfix-sasl-bf: 3 lines, 3 with an address, 0 rejects, 1 of 1 sources; linux/-/postfix
        syslog postfix-spam: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/postfix
        syslog proxmox-bf: 24 lines, 21 with an address, 0 rejects, 2 of 2 sources; linux/-/pvedaemon
        syslog pureftpd-bf: 16 lines, 16 with an address, 0 rejects, 1 of 1 sources; linux/-/pure-ftpd
        syslog smb-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/smb
        syslog sonarr-bf: 7 lines, 7 with an address, 0 rejects, 1 of 1 sources; sonarr/application/-
        syslog ssh-time-based-bf: 15 lines, 15 with an address, 0 rejects, 1 of 1 sources; linux/-/sshd
        syslog sshd-bad-keyexchange-bf: 19 lines, 19 with an address, 0 rejects, 3 of 3 sources; linux/-/sshd
        syslog sshd-impossible-travel-user: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; linux/-/sshd
        syslog sshd-impossible-travel: 2 lines, 2 with an address, 0 rejects, 2 of 2 sources; linux/-/sshd
        syslog sshd_banner_exchange: 12 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/sshd
        syslog sympa_ww-http-scan: 10 lines, 10 with an address, 0 rejects, 1 of 1 sources; sympa/application/-
        syslog wireguard-auth: 5 lines, 5 with an address, 0 rejects, 1 of 1 sources; linux/-/kernel
        uptime-kuma uptime-kuma-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; uptime-kuma/application/-
        vsftpd vsftpd-bf: 6 lines, 6 with an address, 0 rejects, 1 of 1 sources; linux/-/vsftpd
        webmin webmin-bf: 18 lines, 18 with an address, 0 rejects, 1 of 1 sources; linux/-/webmin
        wineventlog cve-2023-23397: 2 lines, 0 with an address, 0 rejects, 0 of 1 sources; windows/-/-
        zimbra zimbra-bf: 7 lines, 7 with an address, 0 rejects, 1 of 1 sources; zimbra/application/-
        zoraxy zoraxy-http-bad-user-agent: 2 lines, 2 with an address, 0 rejects, 1 of 1 sources; -/webserver/zoraxy
    "#]].assert_eq(&shown);
}
