//! Starting the binary, reading what it says.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // As it is now, not as it was called when this was built: builds are shared between worktrees.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.join("../..").canonicalize().unwrap()
}

/// The given data, or `None` after saying that the test is skipped.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let base = std::env::var_os("COUNTERFLOW_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let full = base.join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: {} is not there", full.display());
    None
}

/// The binary.
pub(crate) fn counterflow() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterflow"));
    command.current_dir(root()).env_remove("COUNTERFLOW_CONFIG").env("COUNTERFLOW_LOG", "warn");
    command
}

/// Runs it with arguments and standard input.
pub(crate) fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = counterflow()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends early closes its input: that is for the test to judge by what it printed.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

/// The JSON lines of a standard output.
#[track_caller]
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A folder for one site: where its data goes, its rules with one file in them, its settings.
pub(crate) fn site(file: &str, rules: &str, settings: &str) -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (data, rules_dir, config) = (at("data"), at("rules"), at("config.yaml"));
    std::fs::create_dir(&rules_dir).unwrap();
    std::fs::write(rules_dir.join(file), rules).unwrap();
    std::fs::write(&config, settings).unwrap();
    (folder, data, rules_dir, config)
}

/// Standard error as text.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running engine, killed when the test ends.
pub(crate) struct Engine {
    child: std::process::Child,
    /// Of its HTTP interface.
    pub(crate) http: std::net::SocketAddr,
    /// Of its syslog receiver (TCP).
    pub(crate) syslog: std::net::SocketAddr,
    log: PathBuf,
}

/// An address that nobody uses at the moment.
pub(crate) fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Engine {
    /// Starts `run` on a data folder and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(data: &std::path::Path, rules: &str, more: &[&str]) -> Engine {
        let mut engine = Engine::begin(counterflow(), data, rules, more);
        engine.wait_ready();
        engine
    }

    /// Starts a command that ends with the binary's name and may have an environment of its own; does not wait.
    pub(crate) fn begin(mut command: Command, data: &std::path::Path, rules: &str, more: &[&str]) -> Engine {
        let (http, syslog) = (free_address(), free_address());
        let log = data.with_extension("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .env("COUNTERFLOW_LOG", "info")
            .arg("run")
            .args(["--data", data.to_str().unwrap(), "--rules", rules])
            .args(["--listen", &http.to_string(), "--syslog-tcp", &syslog.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Engine { child, http, syslog, log }
    }

    /// Whether it answers; `false` when it has ended before.
    pub(crate) fn is_ready_or_dead(&mut self) -> bool {
        for _ in 0..1_200 {
            if self.ended().is_some() {
                return false;
            }
            if get(self.http, "/api/v1/health").is_ok_and(|(status, _)| status == 200) {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the engine is not ready: {}", self.log());
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the engine ended with {status}: {}", self.log());
            }
            if get(self.http, "/api/v1/health").is_ok_and(|(status, _)| status == 200) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the engine is not ready: {}", self.log());
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must drain and exit with 0.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        for _ in 0..1_200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0), "{}", self.log());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the engine does not stop: {}", self.log());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A small file system of its own, unmounted when the test ends.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of this size; `None`, after saying so, where that is not allowed.
    pub(crate) fn mount(at: &std::path::Path, size: &str) -> Option<Tmpfs> {
        std::fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Tmpfs(at.to_owned()));
        }
        eprintln!("skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// GET over a connection of its own.
pub(crate) fn get(address: std::net::SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), b"")
}

/// POST over a connection of its own.
pub(crate) fn post(
    address: std::net::SocketAddr,
    path: &str,
    kind: &str,
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    exchange(address, &head, body)
}

/// Any request over a connection of its own, in the name of this machine.
pub(crate) fn request(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let length = body.len();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    exchange(address, &head, body)
}

fn exchange(address: std::net::SocketAddr, head: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
    stream.write_all(head.as_bytes())?;
    // A server may answer before it has read everything (413): then writing fails, and the answer still counts.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(status) => Ok((status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))),
        None => Err(sent.and(read.map(|_| ())).err().unwrap_or_else(|| std::io::Error::other("no answer"))),
    }
}

/// Waits until something holds, at most half a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{what} does not come true");
}
