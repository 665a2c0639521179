//! The table itself. Add a row to teach the engine a log source.
//!
//! Channels, event ids, conditions and field names are those of the SigmaHQ project's own map (`logsources-windows.yml`,
//! 2026-08-05), with the channels of its newer rules and Sysmon for Linux beside it.

/// A service of a product and the channels it writes to.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// `windows` or `linux`.
    pub product: &'static str,
    /// As in a rule's `logsource`.
    pub service: &'static str,
    /// As in an event's `Channel`; case does not matter.
    pub channels: &'static [&'static str],
}

/// A category, and which events of a service belong to it.
#[derive(Clone, Copy, Debug)]
pub struct Category {
    /// `windows` or `linux`.
    pub product: &'static str,
    /// As in a rule's `logsource`.
    pub category: &'static str,
    /// The service whose channels hold its events.
    pub service: &'static str,
    /// Their event ids.
    pub event_ids: &'static [u32],
    /// Fields that must have one of these values as well; case does not matter.
    pub when: &'static [(&'static str, &'static [&'static str])],
    /// A rule's field, and the event's field that holds it.
    pub fields: &'static [(&'static str, &'static str)],
}

/// What follows from a decoder's declaration: events so declared are also of this category or service.
#[derive(Clone, Copy, Debug)]
pub struct Implied {
    /// Declared product.
    pub product: Option<&'static str>,
    /// Declared category.
    pub category: Option<&'static str>,
    /// Declared service.
    pub service: Option<&'static str>,
    /// Also of this category.
    pub also_category: Option<&'static str>,
    /// Also of this service.
    pub also_service: Option<&'static str>,
}

const fn service(service: &'static str, channels: &'static [&'static str]) -> Service {
    Service { product: "windows", service, channels }
}

const fn events(category: &'static str, service: &'static str, event_ids: &'static [u32]) -> Category {
    Category { product: "windows", category, service, event_ids, when: &[], fields: &[] }
}

const fn on_linux(category: &'static str, event_ids: &'static [u32]) -> Category {
    Category { product: "linux", ..events(category, "sysmon", event_ids) }
}

const fn linux(service: &'static str, also_service: &'static str) -> Implied {
    Implied {
        product: Some("linux"),
        category: None,
        service: Some(service),
        also_category: None,
        also_service: Some(also_service),
    }
}

/// Services.
pub const SERVICES: &[Service] = &[
    service("sysmon", &["Microsoft-Windows-Sysmon/Operational"]),
    service("security", &["Security"]),
    service("system", &["System"]),
    service("application", &["Application"]),
    service("powershell", &["Microsoft-Windows-PowerShell/Operational", "PowerShellCore/Operational"]),
    service("powershell-classic", &["Windows PowerShell"]),
    service("windefend", &["Microsoft-Windows-Windows Defender/Operational"]),
    service("taskscheduler", &["Microsoft-Windows-TaskScheduler/Operational"]),
    service("wmi", &["Microsoft-Windows-WMI-Activity/Operational"]),
    service("ntlm", &["Microsoft-Windows-NTLM/Operational"]),
    service("dhcp", &["Microsoft-Windows-DHCP-Server/Operational"]),
    service("dns-server", &["DNS Server"]),
    service("dns-server-audit", &["Microsoft-Windows-DNS-Server/Audit"]),
    service("dns-server-analytic", &["Microsoft-Windows-DNS-Server/Analytical"]),
    service(
        "dns-client",
        &["Microsoft-Windows-DNS Client Events/Operational", "Microsoft-Windows-DNS-Client/Operational"],
    ),
    service("driver-framework", &["Microsoft-Windows-DriverFrameworks-UserMode/Operational"]),
    service("printservice-admin", &["Microsoft-Windows-PrintService/Admin"]),
    service("printservice-operational", &["Microsoft-Windows-PrintService/Operational"]),
    service("smbclient-security", &["Microsoft-Windows-SmbClient/Security"]),
    service("smbclient-connectivity", &["Microsoft-Windows-SmbClient/Connectivity"]),
    service("smbserver-connectivity", &["Microsoft-Windows-SMBServer/Connectivity"]),
    service(
        "terminalservices-localsessionmanager",
        &["Microsoft-Windows-TerminalServices-LocalSessionManager/Operational"],
    ),
    service("codeintegrity-operational", &["Microsoft-Windows-CodeIntegrity/Operational"]),
    service(
        "applocker",
        &[
            "Microsoft-Windows-AppLocker/MSI and Script",
            "Microsoft-Windows-AppLocker/EXE and DLL",
            "Microsoft-Windows-AppLocker/Packaged app-Deployment",
            "Microsoft-Windows-AppLocker/Packaged app-Execution",
        ],
    ),
    service("msexchange-management", &["MSExchange Management"]),
    service("firewall-as", &["Microsoft-Windows-Windows Firewall With Advanced Security/Firewall"]),
    service("bits-client", &["Microsoft-Windows-Bits-Client/Operational"]),
    service(
        "security-mitigations",
        &["Microsoft-Windows-Security-Mitigations/Kernel Mode", "Microsoft-Windows-Security-Mitigations/User Mode"],
    ),
    service("diagnosis-scripted", &["Microsoft-Windows-Diagnosis-Scripted/Operational"]),
    service("shell-core", &["Microsoft-Windows-Shell-Core/Operational"]),
    service("openssh", &["OpenSSH/Operational"]),
    service("ldap", &["Microsoft-Windows-LDAP-Client/Debug"]),
    service("bitlocker", &["Microsoft-Windows-BitLocker/BitLocker Management"]),
    service("vhdmp", &["Microsoft-Windows-VHDMP/Operational"]),
    service("appxdeployment-server", &["Microsoft-Windows-AppXDeploymentServer/Operational"]),
    service("lsa-server", &["Microsoft-Windows-LSA/Operational"]),
    service("appxpackaging-om", &["Microsoft-Windows-AppxPackaging/Operational"]),
    service("appmodel-runtime", &["Microsoft-Windows-AppModel-Runtime/Admin"]),
    service("capi2", &["Microsoft-Windows-CAPI2/Operational"]),
    service(
        "certificateservicesclient-lifecycle-system",
        &["Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational"],
    ),
    service(
        "kernel-shimengine",
        &["Microsoft-Windows-Kernel-ShimEngine/Operational", "Microsoft-Windows-Kernel-ShimEngine/Diagnostic"],
    ),
    service(
        "application-experience",
        &[
            "Microsoft-Windows-Application-Experience/Program-Telemetry",
            "Microsoft-Windows-Application-Experience/Program-Compatibility-Assistant",
        ],
    ),
    service("ntfs", &["Microsoft-Windows-Ntfs/Operational"]),
    service("hyper-v-worker", &["Microsoft-Windows-Hyper-V-Worker"]),
    service("kernel-event-tracing", &["Microsoft-Windows-Kernel-EventTracing"]),
    service("sense", &["Microsoft-Windows-SENSE/Operational"]),
    service("servicebus-client", &["Microsoft-ServiceBus-Client/Admin", "Microsoft-ServiceBus-Client/Operational"]),
    service(
        "microsoft-servicebus-client",
        &["Microsoft-ServiceBus-Client/Admin", "Microsoft-ServiceBus-Client/Operational"],
    ),
    service("iis-configuration", &["Microsoft-IIS-Configuration/Operational"]),
    Service { product: "linux", service: "sysmon", channels: &["Linux-Sysmon/Operational"] },
];

/// Categories.
pub const CATEGORIES: &[Category] = &[
    events("process_creation", "sysmon", &[1]),
    Category {
        fields: &[
            ("Image", "NewProcessName"),
            ("ParentImage", "ParentProcessName"),
            ("ProcessId", "NewProcessId"),
            ("ParentProcessId", "ProcessId"),
            ("LogonId", "SubjectLogonId"),
            ("IntegrityLevel", "MandatoryLabel"),
            ("User", "SubjectUserName"),
        ],
        ..events("process_creation", "security", &[4688])
    },
    events("file_change", "sysmon", &[2]),
    events("network_connection", "sysmon", &[3]),
    events("sysmon_status", "sysmon", &[4, 16]),
    events("process_termination", "sysmon", &[5]),
    events("driver_load", "sysmon", &[6]),
    events("image_load", "sysmon", &[7]),
    events("create_remote_thread", "sysmon", &[8]),
    events("raw_access_thread", "sysmon", &[9]),
    events("process_access", "sysmon", &[10]),
    events("file_event", "sysmon", &[11]),
    events("registry_event", "sysmon", &[12, 13, 14]),
    Category { when: &[("EventType", &["CreateKey"])], ..events("registry_add", "sysmon", &[12]) },
    Category { when: &[("EventType", &["DeleteKey", "DeleteValue"])], ..events("registry_delete", "sysmon", &[12]) },
    events("registry_set", "sysmon", &[13]),
    events("registry_rename", "sysmon", &[14]),
    events("create_stream_hash", "sysmon", &[15]),
    events("pipe_created", "sysmon", &[17, 18]),
    events("wmi_event", "sysmon", &[19, 20, 21]),
    events("dns_query", "sysmon", &[22]),
    events("file_delete", "sysmon", &[23]),
    events("clipboard_change", "sysmon", &[24]),
    events("process_tampering", "sysmon", &[25]),
    events("file_delete_detected", "sysmon", &[26]),
    events("file_block_executable", "sysmon", &[27]),
    events("file_block_shredding", "sysmon", &[28]),
    events("file_executable_detected", "sysmon", &[29]),
    events("sysmon_error", "sysmon", &[255]),
    events("ps_module", "powershell", &[4103]),
    events("ps_script", "powershell", &[4104]),
    events("ps_classic_start", "powershell-classic", &[400]),
    events("ps_classic_provider_start", "powershell-classic", &[600]),
    events("ps_classic_script", "powershell-classic", &[800]),
    Category {
        fields: &[("Signature", "ThreatName"), ("Filename", "Path")],
        ..events("antivirus", "windefend", &[1006, 1007, 1008, 1009, 1010, 1011, 1012, 1017, 1018, 1019, 1115, 1116])
    },
    on_linux("process_creation", &[1]),
    on_linux("network_connection", &[3]),
    on_linux("process_termination", &[5]),
    on_linux("file_event", &[11]),
    on_linux("file_delete", &[23]),
];

/// What follows from declarations.
pub const IMPLIED: &[Implied] = &[
    linux("sshd", "auth"),
    linux("sudo", "auth"),
    linux("su", "auth"),
    linux("login", "auth"),
    linux("passwd", "auth"),
    linux("useradd", "auth"),
    linux("groupadd", "auth"),
    linux("usermod", "auth"),
    linux("systemd-logind", "auth"),
    linux("polkitd", "auth"),
    linux("pam", "auth"),
    linux("crond", "cron"),
    linux("clamd", "clamav"),
    linux("freshclam", "clamav"),
    Implied {
        product: Some("kubernetes"),
        category: None,
        service: Some("audit"),
        also_category: Some("application"),
        also_service: None,
    },
    Implied {
        product: Some("zeek"),
        category: None,
        service: Some("dns"),
        also_category: Some("dns"),
        also_service: None,
    },
];

/// Providers and the channel they write to, for events without a channel.
pub const PROVIDERS: &[(&str, &str)] = &[
    ("Microsoft-Windows-Sysmon", "Microsoft-Windows-Sysmon/Operational"),
    ("Linux-Sysmon", "Linux-Sysmon/Operational"),
    ("Microsoft-Windows-Security-Auditing", "Security"),
    ("Microsoft-Windows-PowerShell", "Microsoft-Windows-PowerShell/Operational"),
    ("PowerShellCore", "PowerShellCore/Operational"),
    ("PowerShell", "Windows PowerShell"),
    ("Service Control Manager", "System"),
    ("Microsoft-Windows-Windows Defender", "Microsoft-Windows-Windows Defender/Operational"),
    ("Microsoft-Windows-TaskScheduler", "Microsoft-Windows-TaskScheduler/Operational"),
    ("Microsoft-Windows-WMI-Activity", "Microsoft-Windows-WMI-Activity/Operational"),
    ("Microsoft-Windows-Bits-Client", "Microsoft-Windows-Bits-Client/Operational"),
    ("Microsoft-Windows-NTLM", "Microsoft-Windows-NTLM/Operational"),
];
