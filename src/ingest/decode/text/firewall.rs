//! Packet filters: Linux netfilter (iptables, nftables, ufw, firewalld) in the kernel's log, pfSense's and OPNsense's
//! filterlog, MikroTik.
//!
//! `action` is `accept` or `block`, Sigma's words for what each product calls differently, and `blocked` says the same
//! as `true` or `false`. A netfilter line does not say what became of the packet; it is taken from the log prefix.

use super::{Found, own, pairs::pairs, put, put_message};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
};

/// A connection or packet that some filter judged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow<'a> {
    pub(super) src_ip: Option<&'a str>,
    pub(super) src_port: Option<&'a str>,
    pub(super) dst_ip: Option<&'a str>,
    pub(super) dst_port: Option<&'a str>,
    pub(super) protocol: Option<&'a str>,
    pub(super) device_in: Option<&'a str>,
    pub(super) device_out: Option<&'a str>,
    /// The product's own word.
    pub(super) action: Option<&'a str>,
}

impl Flow<'_> {
    /// Adds its fields; the source is `source_ip` too, as everywhere.
    pub(super) fn put(&self, sink: &mut Sink<'_>) -> Result<(), Broken> {
        let known = &*KNOWN;
        for (name, value) in [
            (known.src_ip, self.src_ip),
            (known.source_ip, self.src_ip),
            (known.src_port, self.src_port),
            (known.dst_ip, self.dst_ip),
            (known.dst_port, self.dst_port),
            (known.protocol, self.protocol),
            (known.device_in, self.device_in),
            (known.device_out, self.device_out),
        ] {
            put(sink, name, value)?;
        }
        put_action(sink, self.action)
    }
}

/// Adds the product's word for what it did, and Sigma's.
pub(super) fn put_action(sink: &mut Sink<'_>, action: Option<&str>) -> Result<(), Broken> {
    let known = &*KNOWN;
    put(sink, known.action, action)?;
    let Some((word, blocked)) = action.and_then(verdict) else {
        return Ok(());
    };
    if !action.is_some_and(|action| action.eq_ignore_ascii_case(word)) {
        sink.text(known.action, word)?;
    }
    sink.text(known.blocked, blocked)
}

/// Sigma's word for a product's, and whether it means blocked.
fn verdict(action: &str) -> Option<(&'static str, &'static str)> {
    const ACCEPT: &[&str] =
        &["accept", "allow", "allowed", "pass", "passed", "permit", "permitted", "built", "forward", "alert"];
    const BLOCK: &[&str] = &[
        "block",
        "blocked",
        "deny",
        "denied",
        "drop",
        "dropped",
        "reject",
        "rejected",
        "reset-both",
        "reset-client",
        "reset-server",
        "drop-icmp",
        "discard",
        "clientrst",
        "block-url",
        "block-continue",
        "block-override",
        "sinkhole",
        "drop-all-packets",
    ];
    let is = |words: &[&str]| words.iter().any(|word| action.eq_ignore_ascii_case(word));
    if is(ACCEPT) {
        return Some(("accept", "false"));
    }
    is(BLOCK).then_some(("block", "true"))
}

/// Decodes a line of a packet filter; `None` if it is none.
pub(super) fn decode<'a>(text: &'a str, program: &str, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    // Without a program only what begins so: elsewhere the words may be a client's.
    if (matches!(program, "kernel" | "ulogd" | "ulogd2") || (program.is_empty() && text.starts_with("IN=")))
        && let Some((prefix, pairs)) = netfilter(text)
    {
        put_message(sink, text)?;
        return put_netfilter(prefix, pairs, sink).map(Some);
    }
    if program == "filterlog"
        && let Some(flow) = filterlog(text)
    {
        flow.put(sink)?;
        return Ok(Some(firewall("pfsense", "filterlog")));
    }
    match mikrotik(text) {
        Some(flow) => {
            put_message(sink, text)?;
            flow.put(sink)?;
            Ok(Some(firewall("mikrotik", "firewall")))
        }
        None => Ok(None),
    }
}

const fn firewall<'a>(product: &'a str, service: &'a str) -> Found<'a> {
    Found { product: Some(product), category: Some("firewall"), service: Some(service), time: None }
}

/// The log prefix and the pairs of `[12.3] [UFW BLOCK] IN=eth0 OUT= MAC=.. SRC=1.2.3.4 DST=.. PROTO=TCP SPT=1 DPT=2`.
fn netfilter(text: &str) -> Option<(&str, &str)> {
    let at = text.find("IN=")?;
    let pairs = text.get(at..)?;
    let named =
        pairs.contains(" SRC=") && pairs.contains(" DST=") && pairs.contains(" PROTO=") && pairs.contains("OUT=");
    named.then_some((text.get(..at)?, pairs))
}

fn put_netfilter<'a>(prefix: &str, text: &str, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
    let mut flow = Flow { action: action_of(prefix), ..Flow::default() };
    for pair in pairs(text) {
        let value = Some(pair.value);
        match pair.key {
            // An ICMP error quotes the packet it is about in brackets: `[SRC=..`; that is not the flow.
            "SRC" if flow.src_ip.is_none() => flow.src_ip = value,
            "DST" if flow.dst_ip.is_none() => flow.dst_ip = value,
            "SPT" if flow.src_port.is_none() => flow.src_port = value,
            "DPT" if flow.dst_port.is_none() => flow.dst_port = value,
            "PROTO" if flow.protocol.is_none() => flow.protocol = value,
            "IN" => flow.device_in = value,
            "OUT" => flow.device_out = value,
            _ => {}
        }
        own(sink, pair.key, pair.value)?;
    }
    flow.put(sink)?;
    Ok(firewall("linux", "iptables"))
}

/// What the rule's log prefix says that it did.
fn action_of(prefix: &str) -> Option<&'static str> {
    const WORDS: &[(&str, &str)] = &[
        ("BLOCK", "block"),
        ("DROP", "block"),
        ("REJECT", "block"),
        ("DENY", "block"),
        ("DENIED", "block"),
        ("ALLOW", "accept"),
        ("ACCEPT", "accept"),
    ];
    let prefix = prefix.get(prefix.len().saturating_sub(128)..)?.to_ascii_uppercase();
    WORDS.iter().find(|(word, _)| prefix.contains(word)).map(|(_, action)| *action)
}

/// `RULE,SUB,ANCHOR,TRACKER,IFACE,REASON,ACTION,DIR,VERSION,..`: netgate's documented columns.
fn filterlog(text: &str) -> Option<Flow<'_>> {
    let columns: Vec<&str> = text.split(',').take(64).collect();
    let column = |index: usize| columns.get(index).copied().filter(|value| !value.is_empty());
    let (protocol, src, dst) = match column(8)? {
        "4" => (16, 18, 19),
        "6" => (12, 15, 16),
        _ => return None,
    };
    // Only TCP and UDP have ports; other protocols have something else in their place.
    let port = |index: usize| column(index).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let has_ports = matches!(column(protocol)?.to_ascii_lowercase().as_str(), "tcp" | "udp");
    let outward = column(7) == Some("out");
    Some(Flow {
        src_ip: column(src).filter(|text| super::address(text).is_some()),
        dst_ip: column(dst),
        src_port: port(dst + 1).filter(|_| has_ports),
        dst_port: port(dst + 2).filter(|_| has_ports),
        protocol: column(protocol),
        device_in: column(4).filter(|_| !outward),
        device_out: column(4).filter(|_| outward),
        action: column(6),
    })
    .filter(|flow| flow.src_ip.is_some())
}

/// `firewall,info PREFIX CHAIN: in:IF out:IF, .. proto TCP (SYN), 1.2.3.4:5->6.7.8.9:10, len 40`.
fn mikrotik(text: &str) -> Option<Flow<'_>> {
    // At most a time and a host's name stand before it.
    let at = text.find("firewall,info ").filter(|at| *at <= 128)?;
    let before = text.get(..at)?.trim_end();
    if before.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, ' ' | '.' | ':' | '-' | '_' | '+'))
        || before.split(' ').count() > 2
    {
        return None;
    }
    let rest = text.get(at + "firewall,info ".len()..)?;
    let (prefix, rest) = rest.split_once("in:")?;
    let device = |text: &'_ str| text.split([' ', ',']).next().map(str::len);
    let device_in = rest.get(..device(rest)?);
    let device_out =
        rest.split_once("out:").and_then(|(_, rest)| rest.get(..device(rest)?)).filter(|out| !out.starts_with('('));
    let (_, rest) = rest.split_once("proto ")?;
    let (protocol, rest) = rest.split_once(", ")?;
    let (from, to) = rest.split(',').next()?.split_once("->")?;
    let (src_ip, src_port) = ended(from);
    let (dst_ip, dst_port) = ended(to);
    let protocol = protocol.split(' ').next();
    let action = action_of(prefix);
    super::address(src_ip)?;
    Some(Flow {
        src_ip: Some(src_ip),
        src_port,
        dst_ip: Some(dst_ip),
        dst_port,
        protocol,
        device_in,
        device_out,
        action,
    })
}

/// `1.2.3.4:5` and `[::1]:5` in address and port; the port may be missing.
fn ended(text: &str) -> (&str, Option<&str>) {
    match super::address(text) {
        Some(bare) => {
            let port = text.rsplit_once(':').map(|(_, port)| port).filter(|_| bare.len() < text.len());
            (bare, port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())))
        }
        None => (text, None),
    }
}
