//! Real logs from the shared data: every record gives events or a reject with a reason, and the counts are known.

use super::*;

pub(super) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COUNTERFLOW_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let path = root.join("data/events").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Reads at most `limit` records; counts records, events and rejects, and events by `field`.
#[track_caller]
fn check(path: &str, limit: usize, field: &str, expect: Expect) {
    let Some(path) = shared(path) else { return };
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    let mut decoded = Decoded::default();
    let field = Name::intern(field);
    let (mut records, mut events, mut rejects) = (0, 0, 0);
    let mut values: BTreeMap<String, u32> = BTreeMap::new();
    let options = FileOptions { year: Some(2005), ..FileOptions::new(RECEIVED_AT.parse().unwrap()) };
    for record in file::open(path.to_str().unwrap(), &options).unwrap().take(limit) {
        decoder.decode(&record.unwrap(), &mut decoded);
        assert!(!decoded.events.is_empty() || !decoded.rejects.is_empty());
        records += 1;
        events += decoded.events.len();
        rejects += decoded.rejects.len();
        for event in &decoded.events {
            let value = event.fields.first(field).unwrap_or("-").to_owned();
            *values.entry(format!("{value} {:?}", event.time_basis)).or_default() += 1;
        }
        decoded.clear();
    }
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), value.clone()));
    let shown: String = values.iter().take(12).map(|(value, count)| format!("{count} {value}\n")).collect();
    expect.assert_eq(&format!("{records} records, {events} events, {rejects} rejects\n{shown}"));
}

#[test]
fn openssh() {
    check(
        "openssh_2k.log",
        usize::MAX,
        "event_type",
        expect![[r#"
            2000 records, 2000 events, 0 rejects
            524 authentication_failed Assumed
            504 pam_authentication_failed Assumed
            471 disconnected Assumed
            135 pam_user_unknown Assumed
            113 invalid_user Assumed
            113 invalid_user_request Assumed
            85 reverse_mapping_failed Assumed
            35 connection_closed Assumed
            10 protocol_error Assumed
            7 pam_retries_ignored Assumed
            1 authentication_succeeded Assumed
            1 session_closed Assumed
        "#]],
    );
}

#[test]
fn linux() {
    check(
        "linux_2k.log",
        usize::MAX,
        "program",
        expect![[r#"
        2000 records, 2000 events, 0 rejects
        916 ftpd Assumed
        677 sshd(pam_unix) Assumed
        172 su(pam_unix) Assumed
        76 kernel Assumed
        46 klogind Assumed
        43 logrotate Assumed
        16 named Assumed
        12 cups Assumed
        8 - Assumed
        8 udev Assumed
        2 bluetooth Assumed
        2 gdm(pam_unix) Assumed
    "#]],
    );
}

#[test]
fn apache() {
    check(
        "apache_2k.log",
        usize::MAX,
        "level",
        expect![[r#"
        2000 records, 2000 events, 0 rejects
        1405 notice Assumed
        595 error Assumed
    "#]],
    );
}

#[test]
fn windows() {
    check(
        "evtx_attack_samples.jsonl.zst",
        usize::MAX,
        "Channel",
        expect![[r#"
        8255 records, 8255 events, 0 rejects
        3241 Microsoft-Windows-Sysmon/Operational Declared
        1577 Security Declared
        1548 Microsoft-Windows-Bits-Client/Operational Declared
        794 Microsoft-Windows-RemoteDesktopServices-RdpCoreTS/Operational Declared
        415 - Declared
        393 Application Declared
        228 Microsoft-Windows-TerminalServices-RemoteConnectionManager/Operational Declared
        17 System Declared
        11 Microsoft-Windows-Windows Defender/Operational Declared
        7 Microsoft-Windows-Application-Experience/Program-Telemetry Declared
        7 Microsoft-Windows-PowerShell/Operational Declared
        7 Microsoft-Windows-WinRM/Operational Declared
    "#]],
    );
    check(
        "otrf_windows_400k.jsonl.zst",
        5_000,
        "Channel",
        expect![[r#"
        5000 records, 5000 events, 0 rejects
        4487 Microsoft-Windows-Sysmon/Operational Declared
        506 Security Declared
        5 Microsoft-Windows-WMI-Activity/Operational Declared
        2 System Declared
    "#]],
    );
}

#[test]
fn cloudtrail_and_auditd() {
    check(
        "otrf_aws_cloudtrail.jsonl",
        usize::MAX,
        "awsRegion",
        expect![[r#"
        103 records, 103 events, 0 rejects
        103 us-east-1 Declared
    "#]],
    );
    check(
        "otrf_linux_auditd.log",
        usize::MAX,
        "message_id",
        expect![[r#"
            18 records, 18 events, 0 rejects
            18 - Declared
        "#]],
    );
}
