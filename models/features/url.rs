//! What can be read from the text of a URL, without asking anybody.

/// Names of the features.
pub const NAMES: [&str; 36] = [
    "length",
    "length of host",
    "length of path",
    "length of query",
    "dots in host",
    "hyphens in host",
    "digits in host",
    "labels of host",
    "longest label",
    "length of registered name",
    "host is an address",
    "punycode",
    "port",
    "https",
    "www",
    "at sign",
    "depth of path",
    "longest word of path",
    "digits in path",
    "share of digits",
    "share of letters",
    "parameters",
    "percent signs",
    "equal signs",
    "double slash in path",
    "extension",
    "entropy of host",
    "entropy of path",
    "vowels of registered name",
    "digits of registered name",
    "hyphens of registered name",
    "runs of consonants",
    "words that phishing uses",
    "brand outside of the registered name",
    "top-level domain in path or subdomain",
    "capitals",
];

/// Words of pages that ask for secrets.
const WORDS: [&str; 26] = [
    "login",
    "signin",
    "sign-in",
    "log-in",
    "secure",
    "account",
    "update",
    "verify",
    "confirm",
    "bank",
    "webscr",
    "cmd=",
    "password",
    "wp-content",
    "wp-includes",
    "wp-admin",
    "admin",
    "billing",
    "invoice",
    "support",
    "service",
    "session",
    "redirect",
    "recover",
    "unlock",
    "auth",
];

/// Names that are often pretended.
const BRANDS: [&str; 24] = [
    "paypal",
    "apple",
    "amazon",
    "google",
    "facebook",
    "microsoft",
    "netflix",
    "ebay",
    "instagram",
    "whatsapp",
    "dropbox",
    "linkedin",
    "twitter",
    "yahoo",
    "outlook",
    "office",
    "icloud",
    "chase",
    "wellsfargo",
    "dhl",
    "usps",
    "adobe",
    "steam",
    "bankofamerica",
];

/// Endings under which anybody registers names of three parts.
const SECOND_LEVELS: [&str; 14] =
    ["co", "com", "net", "org", "gov", "edu", "ac", "or", "ne", "go", "gob", "gouv", "mil", "ltd"];

/// Parts of a URL, in small letters.
struct Parts<'a> {
    scheme: &'a str,
    user: &'a str,
    host: &'a str,
    port: &'a str,
    path: &'a str,
    query: &'a str,
}

fn parts(url: &str) -> Parts<'_> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Parts { scheme, user, host: host.trim_end_matches('.'), port, path, query }
}

/// The domain that somebody registered: the last two labels of the host, or three under endings such as `co.uk`. An
/// address is itself.
#[must_use]
pub fn registered_domain(url: &str) -> String {
    let lower = url.trim().to_ascii_lowercase();
    let host = parts(&lower).host;
    if is_address(host) {
        return host.to_owned();
    }
    let labels: Vec<&str> = host.split('.').collect();
    let wide = match labels.as_slice() {
        [.., second, top] => top.len() == 2 && SECOND_LEVELS.contains(second),
        _ => false,
    };
    let from = labels.len().saturating_sub(if wide { 3 } else { 2 });
    labels[from..].join(".")
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || (!host.is_empty() && host.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// Host, and what follows it: two texts that mean different things.
pub(crate) fn host_and_rest(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.split_at_checked(end).unwrap_or((rest, ""))
}

/// The features of a URL.
#[must_use]
pub fn features(url: &str) -> [f32; NAMES.len()] {
    let url = url.trim();
    let lower = url.to_ascii_lowercase();
    let p = parts(&lower);
    let domain = registered_domain(&lower);
    let name = domain.split('.').next().unwrap_or_default();
    let top = domain.rsplit('.').next().unwrap_or_default();
    let outside = p.host.strip_suffix(&*domain).unwrap_or_default();
    let count = |text: &str, wanted: fn(u8) -> bool| text.bytes().filter(|&b| wanted(b)).count() as f32;
    let digits = |text: &str| count(text, |b| b.is_ascii_digit());
    let share = |part: f32| part / url.len().max(1) as f32;
    let yes = |is: bool| f32::from(u8::from(is));
    let longest = |text: &str, at: &[char]| text.split(at).map(str::len).max().unwrap_or(0) as f32;
    let vowels = count(name, |b| b"aeiou".contains(&b)) / name.len().max(1) as f32;
    let pretended = BRANDS
        .iter()
        .any(|brand| !name.eq(*brand) && (outside.contains(brand) || p.path.contains(brand) || name.contains(brand)));
    let dotted_top = format!(".{top}");
    let com_outside = outside.contains("com.") || outside.contains("com-") || p.path.contains(".com");
    [
        url.len() as f32,
        p.host.len() as f32,
        p.path.len() as f32,
        p.query.len() as f32,
        count(p.host, |b| b == b'.'),
        count(p.host, |b| b == b'-'),
        digits(p.host),
        p.host.split('.').count() as f32,
        longest(p.host, &['.']),
        name.len() as f32,
        yes(is_address(p.host)),
        yes(p.host.contains("xn--")),
        yes(!p.port.is_empty()),
        yes(p.scheme == "https"),
        yes(p.host.starts_with("www.")),
        yes(!p.user.is_empty() || p.path.contains('@')),
        count(p.path, |b| b == b'/'),
        longest(p.path, &['/', '-', '_', '.']),
        digits(p.path),
        share(digits(&lower)),
        share(count(&lower, |b| b.is_ascii_lowercase())),
        count(p.query, |b| b == b'&') + yes(!p.query.is_empty()),
        count(&lower, |b| b == b'%'),
        count(&lower, |b| b == b'='),
        yes(p.path.contains("//")),
        extension(p.path),
        entropy(p.host),
        entropy(p.path),
        vowels,
        digits(name),
        count(name, |b| b == b'-'),
        consonants(name),
        WORDS.iter().filter(|word| lower.contains(**word)).count() as f32,
        yes(pretended),
        yes(com_outside || p.path.contains(&dotted_top)),
        count(url, |b| b.is_ascii_uppercase()),
    ]
}

/// What the last part of the path ends in: none, a page, a script, a program or archive, another.
fn extension(path: &str) -> f32 {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last.rsplit_once('.').map(|(_, extension)| extension) {
        None => 0.0,
        Some("html" | "htm" | "shtml") => 1.0,
        Some("php" | "asp" | "aspx" | "jsp" | "cgi") => 2.0,
        Some("exe" | "zip" | "rar" | "apk" | "js" | "jar" | "msi") => 3.0,
        Some(_) => 4.0,
    }
}

/// Bits per character.
fn entropy(text: &str) -> f32 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let all = text.len() as f64;
    let bits = |count: &u32| {
        let share = f64::from(*count) / all;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(bits).sum::<f64>() as f32
}

/// The longest run of consonants.
fn consonants(text: &str) -> f32 {
    let run = |c: char| !c.is_ascii_alphabetic() || "aeiouy".contains(c);
    text.split(run).map(str::len).max().unwrap_or(0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, domain: &str) {
        assert_eq!(registered_domain(url), domain);
        assert!(features(url).iter().all(|value| value.is_finite()), "{url}");
    }

    #[test]
    fn the_registered_domain_groups_urls() {
        check("http://www.crestonwood.com/router.php", "crestonwood.com");
        check("https://support-appleld.com.secureupdate.duilawyeryork.com/ap/x?cmd=_update", "duilawyeryork.com");
        check("https://a.b.co.uk:8443/x", "b.co.uk");
        check("HTTP://User@10.0.0.1/x", "10.0.0.1");
        check("example.org", "example.org");
        check("", "");
        check("http://\u{fc}ber.de/\u{1f600}?\u{fc}=1", "\u{fc}ber.de");
    }
}
