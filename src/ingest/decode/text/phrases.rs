//! Programs and applications that tell of logins, refusals and strangers in a sentence: a table of their phrases.
//!
//! A phrase is literal text with places in it (`$user`, `$ip`, ..; `$_` is passed over). An address must parse as one,
//! or the phrase does not fit. Where the user's name comes before the address, the phrase is matched from its end: names
//! are the client's to choose, and a name that imitates the phrase must not choose the address too.
//!
//! Behind syslog a phrase is tried only for messages of its own programs; on lines without a header those of
//! applications that write such lines are tried, and each has words that no other program uses.

use std::{ops::Range, sync::LazyLock};

use aho_corasick::AhoCorasick;
use cf_types::Name;

use super::{Found, address, put};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
};

/// Bytes of a text that phrases are looked for in.
const TEXT_BYTES_MAX: usize = 16_384;
/// Places on a line where some literal stands, at most.
const CANDIDATES_MAX: usize = 256;
/// Bytes of the longest value that a place takes, but for a reason.
const VALUE_BYTES_MAX: usize = 1_024;

/// One application.
struct Application {
    /// Its name in the log source.
    service: &'static str,
    /// Whether it is a program of Linux; else `product` is its name and the category `application`.
    linux: bool,
    /// The programs that syslog knows it by, beside its service; a name with `*` at its end is how they begin.
    programs: &'static [&'static str],
    /// Whether it writes lines without syslog's header as well.
    lines: bool,
    /// Event type and phrase, the more specific first.
    phrases: &'static [(&'static str, &'static str)],
}

const FAILED: &str = "authentication_failed";
const SUCCEEDED: &str = "authentication_succeeded";
/// A second line about an attempt that the program reports as failed too.
const DETAIL: &str = "authentication_detail";

const fn daemon(
    service: &'static str,
    programs: &'static [&'static str],
    phrases: &'static [(&'static str, &'static str)],
) -> Application {
    Application { service, linux: true, programs, lines: false, phrases }
}

const fn logger(
    service: &'static str,
    programs: &'static [&'static str],
    phrases: &'static [(&'static str, &'static str)],
) -> Application {
    Application { service, linux: true, programs, lines: true, phrases }
}

const fn application(service: &'static str, phrases: &'static [(&'static str, &'static str)]) -> Application {
    Application { service, linux: false, programs: &[], lines: true, phrases }
}

const APPLICATIONS: &[Application] = &[
    // Mail.
    daemon(
        "dovecot",
        &["imap-login", "pop3-login", "auth", "dovecot*"],
        &[
            (FAILED, "(auth failed,$_ user=<$user>,$_ rip=$ip"),
            (FAILED, "(auth failed,$_ method=$method, rip=$ip"),
            (SUCCEEDED, "-login: Login: user=<$user>,$_ rip=$ip"),
            ("login_aborted", "-login: $reason user=<$user>,$_ rip=$ip"),
            (DETAIL, "sql($user,$ip,$_: Password mismatch"),
            (DETAIL, "sql($user,$ip,$_: unknown user"),
            (DETAIL, "pam($user,$ip,$_: pam_authenticate() failed"),
            (DETAIL, "passwd-file($user,$ip,$_: unknown user"),
        ],
    ),
    daemon(
        "postfix",
        &["postfix*"],
        &[
            (FAILED, "warning: $_[$ip]: SASL $method authentication failed: $_, sasl_username=$user"),
            (FAILED, "warning: $_[$ip]: SASL $method authentication failed"),
            (SUCCEEDED, "client=$_[$ip], sasl_method=$method, sasl_username=$user"),
            ("mail_rejected", "reject: $_ from $_[$ip]: $reason; "),
            ("mail_rejected", "reject: $_ from $_[$ip]: $reason"),
            ("mail_rejected", "reject: $_ from [$ip]:$port: $reason"),
            ("mail_rejected", "PREGREET $_ from [$ip]:$port"),
            ("mail_rejected", "DNSBL rank $_ for [$ip]:$port"),
            ("mail_rejected", "too many errors after $reason from $_[$ip]"),
            ("connection_lost", "lost connection after $reason from $_[$ip]"),
            ("reverse_mapping_failed", "does not resolve to address $ip"),
            ("disconnected", "disconnect from $_[$ip]"),
            ("connection_opened", "connect from $_[$ip]"),
            ("mail_received", "client=$_[$ip]"),
        ],
    ),
    logger(
        "exim",
        &["exim4"],
        &[
            (FAILED, "authenticator failed for $_[$ip]$_: 535 Incorrect authentication data (set_id=$user)"),
            (FAILED, "authenticator failed for $_[$ip]$_: 535 $reason"),
            ("mail_rejected", " H=$_[$ip]$_ rejected RCPT $reason"),
            ("mail_rejected", " H=$_[$ip]$_ temporarily rejected $reason"),
            ("mail_rejected", " H=$_[$ip]$_ rejected $reason"),
            ("mail_rejected", " H=$_[$ip]$_ sender verify fail $reason"),
            ("protocol_error", "SMTP protocol synchronization error$_ H=$_[$ip]"),
            ("protocol_error", "SMTP call from $_[$ip]$_ dropped: $reason"),
        ],
    ),
    daemon(
        "sendmail",
        &["sm-mta"],
        &[
            ("mail_rejected", "relay=$_[$ip], reject=$reason"),
            ("protocol_error", "[$ip] did not issue MAIL/EXPN/VRFY/ETRN"),
        ],
    ),
    daemon(
        "amavis",
        &["amavisd"],
        &[("mail_rejected", "Blocked $reason {$_}, [$ip]"), ("mail_rejected", "Blocked $reason, [$ip]")],
    ),
    daemon("mailscanner", &[], &[("mail_rejected", "from $ip ($_) to $_ is spam$reason")]),
    // File transfer and shares.
    logger(
        "vsftpd",
        &[],
        &[
            (FAILED, "] [$user] FAIL LOGIN: Client \"$ip\""),
            (SUCCEEDED, "] [$user] OK LOGIN: Client \"$ip\""),
            ("connection_opened", "] CONNECT: Client \"$ip\""),
        ],
    ),
    logger(
        "proftpd",
        &[],
        &[
            (FAILED, "[$ip]): USER $user (Login failed): $reason"),
            (FAILED, "[$ip]): USER $user: no such user found"),
            (FAILED, "[$ip]): SECURITY VIOLATION: $user login attempted"),
            (SUCCEEDED, "[$ip]): USER $user: Login successful"),
            (SUCCEEDED, "[$ip]): ANON $user: Login successful"),
        ],
    ),
    daemon(
        "pure-ftpd",
        &[],
        &[
            (FAILED, "@$ip) [WARNING] Authentication failed for user [$user]"),
            (SUCCEEDED, "@$ip) [INFO] $user is now logged in"),
            ("connection_opened", "@$ip) [INFO] New connection from"),
        ],
    ),
    daemon(
        "ftpd",
        &["in.ftpd"],
        &[
            ("connection_opened", "connection from $ip ("),
            (FAILED, "FTP LOGIN FAILED FROM $ip, $user"),
            (FAILED, "FTP LOGIN REFUSED FROM $ip, $user"),
            ("anonymous_login", "ANONYMOUS FTP LOGIN FROM $ip,"),
        ],
    ),
    daemon(
        "smb",
        &["smbd"],
        &[
            (
                SUCCEEDED,
                "user [$_]\\[$user] at [$_] with [$method] status [NT_STATUS_OK] workstation [$_] remote host [$ip] mapped to",
            ),
            (
                FAILED,
                "user [$_]\\[$user] at [$_] with [$method] status [$reason] workstation [$_] remote host [$ip] mapped to",
            ),
        ],
    ),
    // Shells and tunnels.
    daemon(
        "dropbear",
        &[],
        &[
            (FAILED, "Bad password attempt for '$user' from $ip:$port"),
            (FAILED, "Bad PAM password attempt for '$user' from $ip:$port"),
            ("invalid_user", "Login attempt for nonexistent user from $ip:$port"),
            (SUCCEEDED, "auth succeeded for '$user' from $ip:$port"),
            ("connection_opened", "Child connection from $ip:$port"),
        ],
    ),
    daemon("klogind", &[], &[(FAILED, "Authentication failed from $ip ($_): $reason")]),
    daemon(
        "login",
        &[],
        &[
            (FAILED, "FAILED LOGIN ($_) on '$tty' FOR '$user', $reason"),
            (FAILED, "FAILED LOGIN ($_) on '$tty' from '$ip' FOR '$user', $reason"),
            (FAILED, "FAILED LOGIN $_ FROM $ip FOR $user, $reason"),
            ("session_opened", "ROOT LOGIN ON $tty FROM $ip"),
            ("session_opened", "LOGIN ON $tty BY $user FROM $ip"),
            ("session_opened", "ROOT LOGIN ON $tty"),
            ("session_opened", "ROOT LOGIN  on '$tty'"),
        ],
    ),
    daemon(
        "xinetd",
        &[],
        &[("connection_refused", "FAIL: $_ address from=$ip"), ("connection_opened", "START: $_ from=$ip")],
    ),
    daemon(
        "snmpd",
        &[],
        &[
            ("connection_refused", "Connection from UDP: [$ip]:$port$_ REFUSED"),
            ("connection_opened", "Connection from UDP: [$ip]:$port"),
            ("connection_opened", "Received SNMP packet(s) from $ip"),
        ],
    ),
    logger(
        "endlessh",
        &[],
        &[
            ("connection_opened", "ACCEPT host=$ip port=$port fd="),
            ("connection_closed", "CLOSE host=$ip port=$port fd="),
        ],
    ),
    daemon(
        "cowrie",
        &[],
        &[
            ("honeypot_login", ",$ip] login attempt [$user/$_] $reason"),
            ("connection_opened", "New connection: $ip:$port ("),
        ],
    ),
    application(
        "sshesame",
        &[
            ("honeypot_login", "[$ip] authentication for user \"$user\" with$_ $reason"),
            ("honeypot_tunnel", "[$ip] [channel $_] direct TCP/IP forwarding from $_ to $reason requested"),
            ("honeypot_input", "[$ip] [channel $_] input: $reason"),
            ("honeypot_connection", "[$ip] [channel $_] $reason"),
            ("honeypot_connection", "[$ip] connection with client version $reason"),
            ("honeypot_connection", "[$ip] connection closed"),
            ("honeypot_connection", "[$ip] rejection of further session channels"),
        ],
    ),
    logger(
        "openvpn",
        &["openvpn*", "ovpn*"],
        &[
            (FAILED, "$ip:$port TLS Auth Error: Auth Username/Password verification failed"),
            ("protocol_error", "TLS Error: $reason from [AF_INET]$ip:$port"),
            ("protocol_error", "TLS Error: $reason from [AF_INET6]$ip"),
            (SUCCEEDED, "[$user] Peer Connection Initiated with [AF_INET]$ip:$port"),
        ],
    ),
    daemon(
        "charon",
        &["charon-systemd", "ipsec"],
        &[
            (FAILED, "XAuth authentication of '$user' failed"),
            (FAILED, "EAP method $method failed for peer $user"),
            (FAILED, "] EAP-$method verification failed"),
            ("vpn_connection", "received packet: from $ip[$port] to"),
            ("vpn_connection", "$ip is initiating a"),
        ],
    ),
    // Appliances and managers.
    daemon(
        "opnsense",
        &["audit"],
        &[
            (FAILED, "Web GUI authentication error for '$user' from $ip"),
            (SUCCEEDED, "Successful login for user '$user' from: $ip"),
        ],
    ),
    daemon(
        "pfsense",
        &["php-fpm"],
        &[
            (FAILED, "webConfigurator authentication error for user '$user' from: $ip"),
            (SUCCEEDED, "Successful login for user '$user' from: $ip"),
        ],
    ),
    logger(
        "webmin",
        &["miniserv.pl"],
        &[
            (FAILED, "] $user - $ip global miniserv.pl \"failed\" \"$_\" \"$reason\""),
            (FAILED, "Invalid login as $user from $ip"),
            (FAILED, "Non-existent login as $user from $ip"),
            (SUCCEEDED, "Successful login as $user from $ip"),
        ],
    ),
    application(
        "cpanel",
        &[
            ("login_locked", "] $ip - $user \"$_\" FAILED LOGIN $_: brute force attempt"),
            (FAILED, "] $ip - $user \"$_\" FAILED LOGIN $reason"),
        ],
    ),
    application("proxmox-backup", &[(FAILED, ": authentication failure; rhost=$ip user=$user msg=$reason")]),
    // Applications, in syslog or in files of their own.
    application(
        "adguardhome",
        &[
            (FAILED, "/control/login: from ip $ip: invalid username or password"),
            (FAILED, "[error] POST $ip /control/login: invalid username or password"),
        ],
    ),
    application(
        "guacamole",
        &[
            (FAILED, "Authentication attempt from [$ip, $_] for user \"$user\" failed"),
            (FAILED, "Authentication attempt from $ip for user \"$user\" failed"),
            (SUCCEEDED, "User \"$user\" successfully authenticated from [$ip, "),
            (SUCCEEDED, "User \"$user\" successfully authenticated from $ip"),
        ],
    ),
    application(
        "cas",
        &[(FAILED, "|AUTHENTICATION_FAILED|$user|$ip|"), (SUCCEEDED, "|AUTHENTICATION_SUCCESS|$user|$ip|")],
    ),
    application(
        "authelia",
        &[
            (FAILED, "msg=\"Unsuccessful $method authentication attempt by user '$user'$_ remote_ip=$ip "),
            (DETAIL, "getting details for user with username input '$user'$_ remote_ip=$ip "),
        ],
    ),
    application(
        "bitwarden",
        &[(FAILED, "[WRN] Failed login attempt, 2FA invalid. $ip"), (FAILED, "[WRN] Failed login attempt. $ip")],
    ),
    application("calibre-web", &[(FAILED, "Login failed for user \"$user\" IP-address: $ip")]),
    application(
        "fireflyiii",
        &[
            (FAILED, "Login failed. Attempt for user \"$user\" failed. ($ip ->"),
            ("login_attempted", "AUDIT: User is trying to login using \"$user\" ($ip ->"),
            (FAILED, "AUDIT: MFA failure count is set to $_. ($ip ($user) ->"),
        ],
    ),
    application(
        "freeswitch",
        &[
            (FAILED, "SIP auth failure ($method) on sofia profile '$_' for [$user] from ip $ip"),
            ("invalid_user", "Can't find user [$user] from $ip"),
            ("connection_refused", "IP $ip Rejected by $reason"),
        ],
    ),
    application("gitea", &[(FAILED, "Failed authentication attempt for $user from $ip: $reason [")]),
    application("gitea", &[(FAILED, "Failed authentication attempt for $user from $ip")]),
    application(
        "home-assistant",
        &[(
            FAILED,
            "[homeassistant.components.http.ban] Login attempt or request with invalid authentication from $_ ($ip)",
        )],
    ),
    application("immich", &[(FAILED, "Failed login attempt for user $user from ip address $ip")]),
    application("jellyfin", &[(FAILED, "Authentication request for $user has been denied (IP: $ip)")]),
    application("joplin", &[(FAILED, "/api/sessions: $ip: Invalid username or password: {\"email\":\"$user\"")]),
    application(
        "keycloak",
        &[
            (FAILED, "type=LOGIN_ERROR, $_ ipAddress=$ip, error=$reason, $_ username=$user, "),
            (FAILED, "type=\"LOGIN_ERROR\", $_ ipAddress=\"$ip\", error=\"$reason\", $_ username=\"$user\""),
            (FAILED, "type=LOGIN_ERROR, $_ ipAddress=$ip, error=$reason"),
        ],
    ),
    Application {
        service: "lemonldap-ng",
        linux: false,
        programs: &["LLNG"],
        lines: false,
        phrases: &[
            ("invalid_user", "[warn] $user was not found in LDAP directory ($ip)"),
            ("invalid_user", "Lemonldap::NG : $user was not found in LDAP directory ($ip)"),
            (FAILED, "Bad password for $user ($ip)"),
        ],
    },
    application("mailu", &[("login_locked", "Authentication attempt from $ip has been rate-limited")]),
    application(
        "odoo",
        &[
            (FAILED, "res_users: Login failed for db:$_ login:$user from $ip"),
            (SUCCEEDED, "res_users: Login successful for db:$_ login:$user from $ip"),
        ],
    ),
    application("ombi", &[(FAILED, "Failed login attempt by IP: $ip")]),
    application(
        "paperless-ngx",
        &[
            (FAILED, "[paperless.auth] Login failed for user \u{60}$user\u{60} from private IP \u{60}$ip"),
            (FAILED, "[paperless.auth] Login failed for user \u{60}$user\u{60} from IP \u{60}$ip"),
        ],
    ),
    application(
        "pterodactyl",
        &[(FAILED, "failed to validate user credentials ($reason) ip=$ip subsystem=$method username=$user")],
    ),
    application(
        "sabnzbd",
        &[
            (FAILED, "Unsuccessful login attempt from $ip (X-Forwarded-For: $ip,"),
            (FAILED, "Unsuccessful login attempt from $ip (X-Forwarded-For: $ip)"),
            (FAILED, "Unsuccessful login attempt from $ip ["),
            (FAILED, "Mislukte login poging van $ip ["),
            ("connection_refused", "Refused connection from: $ip"),
        ],
    ),
    Application {
        service: "sonarr",
        linux: false,
        programs: &["mono", "radarr", "lidarr"],
        lines: true,
        phrases: &[
            (FAILED, "Auth: Auth-Failure ip $ip username '$user'"),
            (SUCCEEDED, "Auth: Auth-Success ip $ip username '$user'"),
        ],
    },
    application("stirling-pdf", &[(FAILED, "CustomAuthenticationFailureHandler $_ Failed login attempt from IP: $ip")]),
    Application {
        service: "sympa",
        linux: false,
        programs: &["wwsympa"],
        lines: false,
        phrases: &[
            ("unknown_action", "[client $ip] [user $user] Unknown action $path"),
            ("web_action", "[client $ip] [user $user] $reason"),
            ("web_action", "[client $ip] $reason"),
        ],
    },
    // Dockge is of the same hand and writes the same.
    application(
        "uptime-kuma",
        &[
            (FAILED, "[AUTH] WARN: Incorrect username or password for user $user. IP=$ip"),
            (FAILED, "[AUTH] WARN: Invalid token provided for user $user. IP=$ip"),
        ],
    ),
    application(
        "vaultwarden",
        &[
            (FAILED, "[ERROR] Username or password is incorrect. Try again. IP: $ip. Username: $user"),
            (FAILED, "[ERROR] Invalid admin token. IP: $ip"),
            (FAILED, "[ERROR] Invalid TOTP code!$_ IP: $ip"),
            (FAILED, "[ERROR] Token is invalid! IP: $ip"),
        ],
    ),
    application(
        "zimbra",
        &[(FAILED, "oip=$ip;$_authentication failed for [$user]"), (FAILED, "invalid password;$_oip=$ip;")],
    ),
    application("nextcloud", &[(FAILED, "Login failed: $user (Remote IP: $ip)")]),
    application("grafana", &[(FAILED, "msg=\"Invalid username or password\"$_ remote_addr=$ip ")]),
    application(
        "postgresql",
        &[
            (FAILED, " host=$ip FATAL:  password authentication failed for user \"$user\""),
            (FAILED, "$ip($port) FATAL:  password authentication failed for user \"$user\""),
        ],
    ),
    application("mysql", &[(FAILED, "Access denied for user '$user'@'$ip' (using password: $_)")]),
    application(
        "asterisk",
        &[
            (FAILED, "Registration from '$user' failed for '$ip:$port' - $reason"),
            (FAILED, "Registration from '$user' failed for '$ip' - $reason"),
            (FAILED, "Host $ip failed to authenticate as '$user'"),
            ("connection_refused", "Call from '$user' ($ip:$port) to extension"),
        ],
    ),
    application("squid", &[("connection_refused", "clientProcessRequest: Invalid Request $_ from $ip")]),
];

/// Decodes a text by the phrases of its program, or on a line without header by those of all that write such lines.
pub(super) fn decode<'a>(text: &str, program: Option<&str>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    // Longer ones are no login; a phrase at the beginning of one is still found.
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = text.get(..end).unwrap_or("").trim_end();
    let candidates = match program {
        Some(program) => TABLE.of_program(program),
        None => TABLE.of_line(text),
    };
    for entry in candidates.into_iter().filter_map(|index| TABLE.entries.get(index)) {
        let Some(values) = entry.phrase.fit(text) else { continue };
        for (place, value) in values {
            place.put(value, sink)?;
        }
        sink.text(KNOWN.event_type, entry.event_type)?;
        return Ok(Some(entry.application.found()));
    }
    Ok(None)
}

/// Whether some application of the table goes by this program.
pub(super) fn knows(program: &str) -> bool {
    APPLICATIONS.iter().any(|application| application.is(program))
}

impl Application {
    fn is(&self, program: &str) -> bool {
        let fits = |name: &str| match name.strip_suffix('*') {
            Some(begin) => program.get(..begin.len()).is_some_and(|head| head.eq_ignore_ascii_case(begin)),
            None => name.eq_ignore_ascii_case(program),
        };
        fits(self.service) || self.programs.iter().any(|name| fits(name))
    }

    fn found<'a>(&self) -> Found<'a> {
        if self.linux {
            return Found { product: Some("linux"), service: Some(self.service), ..Found::default() };
        }
        Found { product: Some(self.service), category: Some("application"), ..Found::default() }
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// The phrases of all applications, in the table's order.
struct Table {
    entries: Vec<Entry>,
    /// Where each application's phrases lie.
    applications: Vec<(&'static Application, Range<usize>)>,
    /// The longest literals of the phrases that may stand on a line without header, and whose they are: one pass over a
    /// line of an unknown kind says which few phrases are worth a look.
    literals: Option<AhoCorasick>,
    of_literal: Vec<usize>,
}

struct Entry {
    application: &'static Application,
    event_type: &'static str,
    phrase: Phrase,
}

impl Table {
    fn new() -> Table {
        let (mut entries, mut applications) = (Vec::new(), Vec::new());
        for application in APPLICATIONS {
            let begin = entries.len();
            entries.extend(application.phrases.iter().map(|(event_type, text)| Entry {
                application,
                event_type,
                phrase: Phrase::new(text),
            }));
            applications.push((application, begin..entries.len()));
        }
        let of_literal: Vec<usize> =
            (0..entries.len()).filter(|at| entries.get(*at).is_some_and(|entry| entry.application.lines)).collect();
        let literals = of_literal.iter().filter_map(|at| Some(entries.get(*at)?.phrase.longest()));
        // It cannot fail for a few hundred short literals; if it did, every phrase would be tried.
        let literals = AhoCorasick::new(literals).ok();
        Table { entries, applications, literals, of_literal }
    }

    /// The phrases of a program.
    fn of_program(&self, program: &str) -> Vec<usize> {
        let its = self.applications.iter().filter(|(application, _)| application.is(program));
        its.flat_map(|(_, range)| range.clone()).collect()
    }

    /// The phrases whose longest literal stands on a line.
    fn of_line(&self, text: &str) -> Vec<usize> {
        let Some(literals) = &self.literals else {
            return self.of_literal.clone();
        };
        let mut found: Vec<usize> = literals
            .find_overlapping_iter(text)
            .take(CANDIDATES_MAX)
            .filter_map(|found| self.of_literal.get(found.pattern().as_usize()).copied())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Literal, place, literal, place .. literal: one more literal than places; the first and the last may be empty.
#[derive(Debug)]
struct Phrase {
    literals: Vec<&'static str>,
    places: Vec<Place>,
    /// Matched from the end: a name that the client chose stands before the address.
    backwards: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Any,
    Address,
    User,
    Port,
    Reason,
    Method,
    Path,
    Tty,
}

impl Place {
    fn of(word: &str) -> Place {
        match word {
            "ip" => Place::Address,
            "user" => Place::User,
            "port" => Place::Port,
            "reason" => Place::Reason,
            "method" => Place::Method,
            "path" => Place::Path,
            "tty" => Place::Tty,
            _ => Place::Any,
        }
    }

    fn name(self) -> Option<Name> {
        let known = &*KNOWN;
        Some(match self {
            Place::Any => return None,
            Place::Address => known.source_ip,
            Place::User => known.user,
            Place::Port => known.source_port,
            Place::Reason => known.reason,
            Place::Method => known.auth_method,
            Place::Path => known.path,
            Place::Tty => known.tty,
        })
    }

    fn put(self, value: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
        let value = match self {
            Place::Any => return Ok(()),
            Place::Address => address(value).unwrap_or(value),
            _ => value.trim(),
        };
        self.name().map_or(Ok(()), |name| put(sink, name, Some(value)))
    }

    /// Whether the place may hold this.
    fn takes(self, value: &str) -> bool {
        match self {
            Place::Any | Place::Reason => true,
            Place::Address => address(value).is_some(),
            Place::Port => value.len() <= 5 && value.bytes().all(|byte| byte.is_ascii_digit()),
            Place::User | Place::Method | Place::Path | Place::Tty => value.len() <= VALUE_BYTES_MAX,
        }
    }
}

impl Phrase {
    fn new(text: &'static str) -> Phrase {
        let (mut literals, mut places) = (Vec::new(), Vec::new());
        let mut parts = text.split('$');
        literals.push(parts.next().unwrap_or(""));
        for part in parts {
            let is_word = |c: &char| c.is_ascii_lowercase();
            let end = if part.starts_with('_') { 1 } else { part.chars().take_while(is_word).count() };
            let (word, literal) = part.split_at_checked(end).unwrap_or((part, ""));
            places.push(Place::of(word));
            literals.push(literal);
        }
        let at = |place| places.iter().position(|other| *other == place);
        let backwards = matches!((at(Place::User), at(Place::Address)), (Some(user), Some(address)) if user < address);
        Phrase { literals, places, backwards }
    }

    fn longest(&self) -> &'static str {
        self.literals.iter().max_by_key(|literal| literal.len()).copied().unwrap_or("")
    }

    /// The values of the places, if the phrase is in the text.
    fn fit<'a>(&self, text: &'a str) -> Option<Vec<(Place, &'a str)>> {
        memchr::memmem::find(text.as_bytes(), self.longest().as_bytes())?;
        let values =
            if self.backwards { self.at_end(text) } else { self.at_start(text).or_else(|| self.at_end(text)) }?;
        Some(self.places.iter().copied().zip(values).collect())
    }

    fn at_start<'a>(&self, text: &'a str) -> Option<Vec<&'a str>> {
        let (first, literals) = self.literals.split_first()?;
        let mut rest = text.split_once(first)?.1;
        if first.is_empty() {
            rest = text;
        }
        let mut values = Vec::with_capacity(self.places.len());
        for (place, literal) in self.places.iter().zip(literals) {
            let (value, after) = if literal.is_empty() { last(*place, rest) } else { rest.split_once(literal)? };
            values.push(Some(value).filter(|value| place.takes(value))?);
            rest = after;
        }
        Some(values)
    }

    fn at_end<'a>(&self, text: &'a str) -> Option<Vec<&'a str>> {
        let (end, literals) = self.literals.split_last()?;
        // Where the phrase ends in a place, that place is what follows the last literal.
        let mut rest = if end.is_empty() { text } else { text.rsplit_once(end)?.0 };
        let mut values = Vec::with_capacity(self.places.len());
        for (index, (place, literal)) in self.places.iter().zip(literals).enumerate().rev() {
            let (before, value) = if literal.is_empty() { ("", rest) } else { rest.rsplit_once(literal)? };
            let is_last = index + 1 == self.places.len() && end.is_empty();
            let value = if is_last { last(*place, value).0 } else { value };
            // What begins the text has no literal before it: an address there is the last word.
            let value = if literal.is_empty() { value.rsplit(' ').next().unwrap_or(value) } else { value };
            values.push(Some(value).filter(|value| place.takes(value))?);
            rest = before;
        }
        values.reverse();
        Some(values)
    }
}

/// What a place at the end of a phrase takes of what is left: a reason all, others a word without what ends sentences.
fn last(place: Place, rest: &str) -> (&str, &str) {
    if place == Place::Reason {
        return (rest, "");
    }
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '\u{60}' | ')'))
        .unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
    (word.trim_end_matches('.'), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(phrase: &'static str, text: &str) -> String {
        match Phrase::new(phrase).fit(text) {
            Some(values) => values.iter().map(|(_, value)| format!("[{value}]")).collect(),
            None => "-".to_owned(),
        }
    }

    #[test]
    fn a_name_cannot_choose_the_address() {
        let phrase = "Failed login for $user from $ip";
        assert_eq!(fit(phrase, "Failed login for bob from 1.2.3.4"), "[bob][1.2.3.4]");
        assert_eq!(fit(phrase, "Failed login for bob from 6.6.6.6 from 1.2.3.4"), "[bob from 6.6.6.6][1.2.3.4]");
        let phrase = "IP: $ip. Username: $user";
        assert_eq!(fit(phrase, "IP: 1.2.3.4. Username: IP: 6.6.6.6. Username: x."), "[1.2.3.4][IP:]");
        assert_eq!(fit(phrase, "IP: ::1. Username: a@b.c."), "[::1][a@b.c]");
    }

    #[test]
    fn an_address_must_be_one() {
        assert_eq!(fit("from $ip", "from nowhere"), "-");
        assert_eq!(fit("from $ip", "from [::1]:55."), "[[::1]:55]");
        assert_eq!(fit("$ip:$port TLS", "2024-12-15 14:12:12 192.168.1.31:45321 TLS"), "[192.168.1.31][45321]");
    }

    #[test]
    fn every_phrase_has_words_of_its_own() {
        for (application, (_, text)) in
            APPLICATIONS.iter().flat_map(|it| it.phrases.iter().map(move |phrase| (it, phrase)))
        {
            let phrase = Phrase::new(text);
            let longest = phrase.literals.iter().map(|literal| literal.len()).max().unwrap();
            let needed = if application.lines { 6 } else { 3 };
            assert!(longest >= needed, "{}: {text}", application.service);
            assert_eq!(phrase.literals.len(), phrase.places.len() + 1);
        }
    }
}
