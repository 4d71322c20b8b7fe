//! Talking to the lab's own processes: each listens at an abstract Unix socket, which belongs to its network namespace.

use super::netns::Namespace;
use super::process::{self, wait_until};
use anyhow::{Context, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest request or answer.
const MAX_LINE: usize = 64 << 10;
const START: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);
/// Ends the process that gets it.
const STOP: &str = "stop";

/// One of the lab's own processes.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its subcommand of `lanrage-lab`, and the name of its socket.
    pub name: &'static str,
}

impl Service {
    /// Asks the process in this namespace; nothing if there is none.
    pub fn ask(self, namespace: &Namespace, request: &str) -> Result<Option<String>> {
        let Ok(mut stream) = namespace.run(|| UnixStream::connect_addr(&self.address()?))? else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(ANSWER))?;
        writeln!(stream, "{request}").with_context(|| format!("the lab's {} hung up", self.name))?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        match answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), "")) {
            ("ok", text) => Ok(Some(text.into())),
            ("error", text) => bail!("{} in {}: {text}", self.name, namespace.name()),
            _ => bail!("the {} in {} has ended", self.name, namespace.name()),
        }
    }

    /// Starts the process, and waits until it answers.
    pub fn start(self, namespace: &Namespace, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(process::program("lanrage-lab")?);
        command.arg(self.name).args(arguments).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = namespace.spawn(&mut command)?;
        let mut ended = false;
        let mut answers = || {
            ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || namespace.run(|| UnixStream::connect_addr(&self.address()?)).is_ok_and(|s| s.is_ok())
        };
        if wait_until(START, &mut answers) && !ended {
            return Ok(());
        }
        let _ = child.kill();
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("the {} in {} does not start: {complaint}", self.name, namespace.name())
    }

    /// Ends the process, if there is one.
    pub fn stop(self, namespace: &Namespace) -> Result<()> {
        if self.ask(namespace, STOP)?.is_some() {
            let is_gone =
                || namespace.run(|| UnixStream::connect_addr(&self.address()?)).is_ok_and(|s| s.is_err());
            if !wait_until(ANSWER, is_gone) {
                bail!("the {} in {} does not end", self.name, namespace.name());
            }
        }
        Ok(())
    }

    /// Is that process: answers requests, one a connection, until it is told to stop.
    pub fn serve(self, mut answer: impl FnMut(&str) -> Result<String>) -> Result<()> {
        let listener = UnixListener::bind_addr(&self.address()?)
            .with_context(|| format!("is there another {} in this namespace?", self.name))?;
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut request = String::new();
            stream.set_read_timeout(Some(ANSWER))?;
            let mut reader = std::io::Read::take(&stream, MAX_LINE as u64);
            if BufReader::new(&mut reader).read_line(&mut request).is_err() {
                continue;
            }
            let request = request.trim_end();
            let text = match request {
                "" => continue, // somebody looked whether this answers
                STOP => Ok(String::new()),
                _ => answer(request),
            };
            let line = match text {
                Ok(text) => format!("ok {text}\n"),
                Err(error) => format!("error {}\n", format!("{error:#}").replace('\n', "; ")),
            };
            let _ = stream.write_all(line.as_bytes()); // whoever asked has gone: nobody misses it
            if request == STOP {
                break;
            }
        }
        Ok(())
    }

    fn address(self) -> std::io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("lanrage-lab-{}", self.name))
    }
}
