//! Blocks addresses by nftables: two sets with time-outs in a table of our own.
//!
//! The chains hook input and forward at priority -300 (raw), before connection tracking. A drop in any base chain is
//! final, an accept ends only its own chain: so no `ct state established accept` of a firewall behind us lets a blocked
//! address through, and connections that exist stop with the next packet. Without a packet from outside nothing is torn
//! down: a peer that only listens is cut off when its acknowledgements are missed.
//!
//! Table, sets and chains stay when the last element goes; nothing outside the table is read or written. Every element
//! has a time-out in the kernel: also if we are gone, nobody is blocked for longer than was said.
//!
//! The program gets arguments and standard input, never a shell, and the one thing in them from outside is an address
//! that was parsed.

use std::{
    net::IpAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::{protect::own_addresses, settings::BlockAddressSettings};

/// Output of a command that is read, in bytes: some 200,000 elements.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Makes table, sets and chains as they must be, in one transaction with what follows. Only our own chains are flushed.
const FRAME: &str = "\
add table inet counterflow
add set inet counterflow block4 { type ipv4_addr; flags timeout; }
add set inet counterflow block6 { type ipv6_addr; flags timeout; }
add chain inet counterflow input { type filter hook input priority -300; policy accept; }
add chain inet counterflow forward { type filter hook forward priority -300; policy accept; }
flush chain inet counterflow input
flush chain inet counterflow forward
add rule inet counterflow input ip saddr @block4 counter drop
add rule inet counterflow input ip6 saddr @block6 counter drop
add rule inet counterflow forward ip saddr @block4 counter drop
add rule inet counterflow forward ip6 saddr @block6 counter drop
";

/// The `nft` program, perhaps in another network namespace.
#[derive(Clone, Debug)]
pub struct Nftables {
    /// Program and arguments before ours.
    prefix: Vec<String>,
    nft: String,
    timeout: Duration,
    /// Whether the addresses to protect are those of another namespace.
    elsewhere: bool,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program did not start.
    #[error("could not start {program}: {source}; hint: it comes with the package nftables")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[error("{command} failed ({status}): {stderr}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// It did not end in time: its effect is unknown.
    #[error("{command} did not end within {} ms", timeout.as_millis())]
    TimedOut {
        /// What was run.
        command: String,
        /// How long we waited.
        timeout: Duration,
    },
}

impl Nftables {
    /// Takes the settings.
    #[must_use]
    pub fn new(settings: &BlockAddressSettings) -> Nftables {
        let enter = |netns: &Path| vec!["nsenter".to_owned(), format!("--net={}", netns.display())];
        let prefix = match &settings.netns {
            _ if !settings.command_prefix.is_empty() => settings.command_prefix.clone(),
            Some(netns) => enter(netns),
            None => Vec::new(),
        };
        Nftables {
            elsewhere: !prefix.is_empty(),
            prefix,
            nft: settings.nft.display().to_string(),
            timeout: Duration::from_millis(settings.timeout_ms),
        }
    }

    /// What [`Nftables::block`] would run, for the record.
    #[must_use]
    pub fn block_command(&self, address: IpAddr, ttl_s: u32) -> Value {
        json!({"command": self.line(&["-f", "-"]), "stdin": block_script(address, ttl_s)})
    }

    /// What [`Nftables::unblock`] would run, for the record.
    #[must_use]
    pub fn unblock_command(&self, address: IpAddr) -> Value {
        json!({"command": self.line(&["-f", "-"]), "stdin": unblock_script(address)})
    }

    /// Drops what comes from the address from now on, for `ttl_s` seconds; when it is blocked already, its time begins
    /// anew. One transaction of the kernel.
    ///
    /// # Errors
    /// The command failed, or did not end in time: then look with [`Nftables::remaining`].
    pub async fn block(&self, address: IpAddr, ttl_s: u32) -> Result<(), NftError> {
        self.run(&["-f", "-"], &block_script(address, ttl_s)).await.map(drop)
    }

    /// Lets the address through again; done already is done.
    ///
    /// # Errors
    /// As for [`Nftables::block`].
    pub async fn unblock(&self, address: IpAddr) -> Result<(), NftError> {
        match self.run(&["-f", "-"], &unblock_script(address)).await {
            Err(NftError::Failed { stderr, .. }) if absent(&stderr) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Looks in the kernel: for how many more seconds the address is blocked; `None` when it is not.
    ///
    /// # Errors
    /// The command failed or did not end in time.
    pub async fn remaining(&self, address: IpAddr) -> Result<Option<u64>, NftError> {
        // Not `get element`: nft 1.0.6 answers it as text also with -j.
        let arguments = ["-j", "list", "set", "inet", "counterflow", set_of(address)];
        let listing = match self.run(&arguments, "").await {
            Err(NftError::Failed { stderr, .. }) if absent(&stderr) => return Ok(None),
            listing => listing?,
        };
        Ok(remaining_in(&listing, address))
    }

    /// The addresses of the machine (or namespace) that is acted in.
    ///
    /// # Errors
    /// They cannot be read: then nothing may be blocked.
    pub async fn own_addresses(&self) -> Result<Vec<IpAddr>, NftError> {
        const FILES: [&str; 2] = ["/proc/net/fib_trie", "/proc/net/if_inet6"];
        if self.elsewhere {
            // /proc/net is that of the reading process, so it must be read in there.
            let text = self.command(&["cat", FILES[0], FILES[1]], "").await?;
            return Ok(own_addresses(&text));
        }
        let mut text = String::new();
        for file in FILES {
            // Without IPv6 the second file is missing.
            match tokio::fs::read_to_string(file).await {
                Ok(read) => text.push_str(&read),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(NftError::Start { program: file.to_owned(), source }),
            }
        }
        Ok(own_addresses(&text))
    }

    fn line(&self, arguments: &[&str]) -> Vec<String> {
        let own = std::iter::once(self.nft.clone()).chain(arguments.iter().map(|argument| (*argument).to_owned()));
        self.prefix.iter().cloned().chain(own).collect()
    }

    async fn run(&self, arguments: &[&str], stdin: &str) -> Result<String, NftError> {
        let mut line = vec![self.nft.as_str()];
        line.extend_from_slice(arguments);
        self.command(&line, stdin).await
    }

    /// Runs one command after the prefix, with a limit on time and output.
    async fn command(&self, line: &[&str], stdin: &str) -> Result<String, NftError> {
        let words: Vec<&str> = self.prefix.iter().map(String::as_str).chain(line.iter().copied()).collect();
        let shown = words.join(" ");
        match tokio::time::timeout(self.timeout, spawned(&words, stdin)).await {
            Ok(ended) => ended,
            Err(_) => Err(NftError::TimedOut { command: shown, timeout: self.timeout }),
        }
    }
}

async fn spawned(words: &[&str], stdin: &str) -> Result<String, NftError> {
    let program = words.first().copied().unwrap_or_default();
    let start = |source| NftError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(words.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading says why on its standard error.
        pipe.write_all(stdin.as_bytes()).await.ok();
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read_out = async {
        if let Some(pipe) = child.stdout.take() {
            pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut out).await.ok();
        }
    };
    let read_err = async {
        if let Some(pipe) = child.stderr.take() {
            pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut err).await.ok();
        }
    };
    tokio::join!(read_out, read_err);
    let status = child.wait().await.map_err(start)?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&err).trim().chars().take(1_024).collect();
        return Err(NftError::Failed { command: words.join(" "), status, stderr });
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// `add` before `delete`, so that there is something to delete; the second `add` begins the time anew.
fn block_script(address: IpAddr, ttl_s: u32) -> String {
    let set = set_of(address);
    let element = format!("element inet counterflow {set} {{ {address} timeout {}s }}", ttl_s.max(1));
    format!("{FRAME}add {element}\ndelete element inet counterflow {set} {{ {address} }}\nadd {element}\n")
}

fn unblock_script(address: IpAddr) -> String {
    format!("delete element inet counterflow {} {{ {address} }}\n", set_of(address))
}

fn set_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "block4" } else { "block6" }
}

/// Whether nft failed because the element, the set or the table is not there.
fn absent(stderr: &str) -> bool {
    stderr.contains("No such file or directory")
}

/// Finds an element in a JSON listing: seconds that it has left.
fn remaining_in(listing: &str, address: IpAddr) -> Option<u64> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let shown = address.to_string();
    listing
        .get("nftables")?
        .as_array()?
        .iter()
        .filter_map(|object| object.get("set")?.get("elem")?.as_array())
        .flatten()
        .find_map(|element| match element {
            Value::String(value) => (*value == shown).then_some(0),
            _ => {
                let element = element.get("elem")?;
                let found = element.get("val")?.as_str()? == shown;
                found.then(|| element.get("expires").and_then(Value::as_u64).unwrap_or(0))
            }
        })
}
