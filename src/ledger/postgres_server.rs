//! A PostgreSQL server for tests, on a temporary folder and a socket in it. Shared by the packages whose tests need one.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

impl Server {
    /// Starts one; `None`, with the reason printed, where there is none. `durable`: with `fsync`.
    pub(crate) fn start(durable: bool) -> Option<Server> {
        let Some(programs) = programs() else {
            eprintln!("skipped: there is no PostgreSQL server on this machine (Debian: postgresql)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("cf-pg-").tempdir().unwrap();
        // The server refuses to be root.
        let user = rustix::process::geteuid().is_root().then(user);
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let server = Server { folder, programs, user };
        let data = server.data();
        let mut make = server.program("initdb");
        make.arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let made = make.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let socket = server.folder.path().display();
        let sync = if durable { "on" } else { "off" };
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{socket}'\nmax_connections = 400\nfsync = {sync}\n\
             shared_buffers = '32MB'\n"
        );
        let path = data.join("postgresql.conf");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, before + &settings).unwrap();
        server.begin();
        Some(server)
    }

    /// Lets it listen on loopback, to who has a password and speaks TLS, with a certificate for `localhost` by an authority of its
    /// own; `None`, with the reason printed, where none can be made. Gives the port, and the folder with `ca.pem`.
    #[allow(dead_code)] // one of the packages has no test of it
    pub(crate) fn listen_with_tls(&self, password: &str) -> Option<(u16, &Path)> {
        let folder = self.folder.path();
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            command.current_dir(folder).args(arguments);
            if let Some((uid, gid)) = self.user {
                command.uid(uid).gid(gid);
            }
            command.output()
        };
        let new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"];
        let Ok(made) =
            openssl(&[&["req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"], &new[..]].concat())
        else {
            eprintln!("skipped: there is no openssl on this machine");
            return None;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let name = [
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=CA:FALSE",
        ];
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem"];
        let made = openssl(&[&["req", "-x509"], &new[..], &name[..], &by[..]].concat()).unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let conf = self.data().join("postgresql.conf");
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nssl = on\nssl_cert_file = '{at}/server.pem'\n\
             ssl_key_file = '{at}/server.key'\n",
            at = folder.display()
        );
        let before = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, before + &settings).unwrap();
        fs::write(self.data().join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
            .unwrap();
        self.kill();
        self.begin();
        let mut psql = self.program("psql");
        psql.args(["-h"]).arg(folder).args(["-p", &port.to_string(), "-U", "postgres", "-qc"]);
        let said = psql.arg(format!("ALTER ROLE postgres PASSWORD '{password}'")).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        Some((port, folder))
    }

    /// What `psql` answers over the socket of a server that listens.
    #[allow(dead_code)] // as above
    pub(crate) fn ask(&self, port: u16, sql: &str) -> String {
        let mut psql = self.program("psql");
        psql.arg("-h").arg(self.folder.path()).args(["-p", &port.to_string(), "-U", "postgres", "-Atc", sql]);
        String::from_utf8(psql.output().unwrap().stdout).unwrap()
    }

    /// Where its socket is.
    fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// The address of its only database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.socket().display())
    }

    /// Starts it again, after a kill as soon as its last process has gone.
    pub(crate) fn begin(&self) {
        let log = self.folder.path().join("log");
        for _ in 0..100 {
            let mut start = self.program("pg_ctl");
            start.arg("-D").arg(self.data()).arg("-l").arg(&log).args(["-w", "-t", "60", "-s", "start"]);
            // Its output must not be held open by the server.
            start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            if start.status().unwrap().success() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&self) {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = text.lines().next().unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", "immediate", "-s", "-w", "stop"]);
        let _gone = stop.stderr(std::process::Stdio::null()).status();
    }
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let newest = debian.filter(|bin| bin.join("initdb").exists()).max();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| std::env::split_paths(&paths).find(|bin| bin.join("initdb").exists()))
}

/// User and group of PostgreSQL, or of nobody.
fn user() -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = |name: &str| {
        let fields: Vec<&str> =
            accounts.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    account("postgres").unwrap_or((65_534, 65_534))
}
