//! The processes of a measurement: the page server on one core, a picker or the bare server on the other.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

/// Where what is measured runs.
const PICKER_CORE: &str = "0";
/// Where everything else runs.
pub(crate) const OTHER_CORE: &str = "1";
/// What a gateway lets the picker send before it reads (Envoy's default is 24 MiB a connection).
const CONNECTION_WINDOW: u32 = 24 << 20;
const STREAM_WINDOW: u32 = 16 << 20;
/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process on one core, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    /// A server.
    fn start(program: &Path, arguments: &[String]) -> Result<Self, Failure> {
        // taskset becomes the program: its process is the one to look at.
        let mut command = Command::new("taskset");
        command.args(["-c", PICKER_CORE]).arg(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn().map_err(|error| format!("taskset (util-linux): {error}"))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What follows `mark` in the first line of its log that has it, up to a space. Warnings and errors after that go to
    /// this program's own.
    fn told(&mut self, mark: &'static str) -> Result<String, Failure> {
        let lines = BufReader::new(self.0.stderr.take().ok_or("no pipe")?).lines();
        let (sender, told) = channel();
        std::thread::spawn(move || {
            let (mut sender, mut before) = (Some(sender), Vec::new());
            for line in lines.map_while(Result::ok) {
                match (line.split(mark).nth(1), sender.take()) {
                    (Some(told), Some(sender)) => drop(sender.send(told.to_owned())),
                    (None, Some(waiting)) => {
                        before.push(line);
                        sender = Some(waiting);
                    }
                    (_, None) if line.contains(" INFO ") => {}
                    (_, None) => eprintln!("{line}"),
                }
            }
            if sender.is_some() {
                before.iter().for_each(|line| eprintln!("{line}"));
            }
        });
        let told = told.recv_timeout(PATIENCE).map_err(|_| format!("a server did not tell {mark:?} in {PATIENCE:?}"))?;
        Ok(told.split(' ').next().unwrap_or_default().to_owned())
    }
}

/// The page server.
#[derive(Debug)]
pub(crate) struct Pages {
    process: Running,
    /// Its end is the server's.
    _stdin: Option<ChildStdin>,
    pub(crate) addresses: Vec<String>,
}

impl Pages {
    /// `restricted`: whether `?name[]=` is answered with what was asked for.
    pub(crate) fn start(endpoints: usize, restricted: bool) -> Result<Self, Failure> {
        let answers = if restricted { "restricted" } else { "full" };
        let mut command = Command::new("taskset");
        command.args(["-c", OTHER_CORE]).arg(std::env::current_exe()?);
        command.args(["pages", "--endpoints", &endpoints.to_string(), "--answers", answers]);
        let mut process = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let stdin = process.0.stdin.take();
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let addresses = serde_json::from_str::<Vec<String>>(&line)?;
        Ok(Self { process, _stdin: stdin, addresses })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A picker or the bare server, and where it takes streams.
#[derive(Debug)]
pub(crate) struct Server {
    process: Running,
    pub(crate) address: String,
}

impl Server {
    /// `weir epp` for `endpoints`, with its defaults and `extra`. `certificate`: a directory; without it plain text.
    pub(crate) fn weir(
        binary: &Path,
        folder: &Path,
        endpoints: &[String],
        certificate: Option<&Path>,
        extra: &[String],
    ) -> Result<Self, Failure> {
        let pools = folder.join("pools.yaml");
        let list = serde_json::to_string(endpoints)?;
        std::fs::write(&pools, format!("apiVersion: weir/v1\npools:\n- name: load\n  namespace: n\n  endpoints: {list}\n"))?;
        let pools = pools.display().to_string();
        let line = "epp --pool-name load --pool-namespace n --bind-address 127.0.0.1 --grpc-port 0 --grpc-health-port 0 --metrics-port 0 --pools";
        let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).chain([pools]).collect();
        match certificate {
            None => arguments.push("--secure-serving=false".into()),
            Some(directory) => arguments.extend(["--cert-path".into(), directory.display().to_string()]),
        }
        arguments.extend(extra.iter().cloned());
        Self::start(binary, &arguments)
    }

    /// The bare server, which names this endpoint.
    pub(crate) fn bare(endpoint: &str, certificate: Option<&Path>) -> Result<Self, Failure> {
        let mut arguments: Vec<String> = ["bare", "--destination", endpoint].map(str::to_owned).into();
        if let Some(directory) = certificate {
            arguments.extend(["--certificate".into(), directory.display().to_string()]);
        }
        Self::start(&std::env::current_exe()?, &arguments)
    }

    fn start(binary: &Path, arguments: &[String]) -> Result<Self, Failure> {
        let mut process = Running::start(binary, arguments)?;
        let address = process.told("ext_proc=")?;
        Ok(Self { process, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Opens `count` connections, as the threads of a gateway do.
    pub(crate) async fn connect(&self, count: usize, certificate: Option<&Path>) -> Result<Vec<SendRequest<Bytes>>, Failure> {
        let mut connections = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            connections.push(match certificate {
                None => handshake(stream).await?,
                Some(directory) => {
                    let name = rustls_pki_types::ServerName::try_from("127.0.0.1")?;
                    handshake(crate::tls::connector(directory)?.connect(name, stream).await?).await?
                }
            });
        }
        Ok(connections)
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Bytes>, Failure> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).enable_push(false);
    let (sender, connection) = builder.handshake(stream).await?;
    tokio::spawn(async move {
        // The server is ended before its connections.
        if let Err(error) = connection.await
            && !error.is_io()
        {
            eprintln!("a connection broke: {error}");
        }
    });
    Ok(sender)
}
