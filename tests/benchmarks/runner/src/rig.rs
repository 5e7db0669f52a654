//! The servers and clients of a comparison.
//!
//! All run in the environment of the tests (`tests/env`). Each side has one server per driver,
//! which keeps running while time is measured: a server without a client does nothing. Memory is
//! measured first, with one server at a time. Servers share pages such as the driver's code, so of
//! several servers each would count only a part of them.

use std::ffi::OsStr;
use std::fmt::{Display, Formatter};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long to wait until a server listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// The renderer that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// No renderer: the driver runs in the client's own process.
    Native,
    /// `hesper vtest`.
    Hesper,
    /// `hesper vtest --isolate=on`.
    Isolated,
    /// `hesper vtest --isolate=off`.
    Together,
    /// `virgl_test_server --venus --no-virgl`.
    Reference,
}

impl Side {
    /// Those that `compare` measures.
    pub(crate) const COMPARED: [Self; 3] = [Self::Native, Self::Hesper, Self::Reference];
    /// Those that `isolation` measures.
    pub(crate) const ISOLATION: [Self; 2] = [Self::Isolated, Self::Together];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Hesper => "Hesper",
            Self::Isolated => "a process per context",
            Self::Together => "one process",
            Self::Reference => "reference",
        }
    }
}

/// The Vulkan driver that renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// lavapipe, unchanged.
    Lavapipe,
    /// lavapipe without commands and with fake pipelines and descriptor sets, by
    /// `tests/benchmarks/layer`.
    Null,
}

impl Driver {
    pub(crate) const ALL: [Self; 2] = [Self::Lavapipe, Self::Null];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lavapipe => "lavapipe",
            Self::Null => "null",
        }
    }

    /// The layer's mode for the process that loads the driver; an empty mode means no layer.
    fn layer(self, side: Side) -> &'static str {
        match (self, side == Side::Reference) {
            (Self::Lavapipe, false) => "",
            (Self::Lavapipe, true) => "memfd",
            (Self::Null, false) => "null",
            (Self::Null, true) => "memfd,null",
        }
    }
}

/// The cost of one operation, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Elapsed time.
    pub(crate) elapsed: f64,
    /// CPU time of the client.
    pub(crate) client: f64,
    /// CPU time of all processes of the server; NaN natively.
    pub(crate) server: f64,
}

impl Display for Measured {
    fn fmt(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
        let Self {
            elapsed,
            client,
            server,
        } = self;
        write!(
            text,
            "{elapsed:.3} µs, CPU {client:.3} client {server:.3} server"
        )
    }
}

/// Memory in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Proportional set size: the size of shared pages is divided by the number of processes that
    /// share them.
    pub(crate) pss: f64,
    /// The part of it that no file backs.
    pub(crate) anonymous: f64,
}

/// Memory while one client has a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    /// How much the client's own memory has grown. Natively, this is the driver's cost.
    pub(crate) client: Memory,
    /// The server's memory.
    pub(crate) server: Memory,
    /// The number of the server's processes.
    pub(crate) processes: f64,
}

impl Display for Footprint {
    fn fmt(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
        let Self {
            client,
            server,
            processes,
        } = self;
        write!(
            text,
            "KiB (anonymous): client {} ({}), server {} ({}) in {processes} processes",
            client.pss, client.anonymous, server.pss, server.anonymous
        )
    }
}

/// A server process. Dropping the value kills it.
struct Server {
    driver: Driver,
    side: Side,
    process: Child,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited already. Processes that it started for clients end with their
        // connections.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // A killed server leaves its socket, which would look like the next server's.
        let _ = fs::remove_file(&self.socket);
    }
}

/// The servers, programs and folders that measurements need.
pub(crate) struct Rig {
    // Must come before the folder: the servers are dropped first, then the folder with their
    // sockets.
    servers: Vec<Server>,
    folder: TempDir,
    programs: PathBuf,
}

impl Rig {
    /// Prepares everything that servers and clients need.
    pub(crate) fn new() -> Result<Self, String> {
        let folder =
            tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let rig = Self {
            servers: Vec::new(),
            folder,
            programs: this.parent().map(Path::to_owned).unwrap_or_default(),
        };
        rig.write_manifest()
            .map_err(|error| format!("the layer's manifest: {error}"))?;
        Ok(rig)
    }

    /// Starts the servers of a driver for these sides.
    pub(crate) fn start(&mut self, driver: Driver, sides: &[Side]) -> Result<(), String> {
        for &side in sides.iter().filter(|side| **side != Side::Native) {
            let server = self.serve(driver, side)?;
            self.servers.push(server);
        }
        Ok(())
    }

    fn write_manifest(&self) -> std::io::Result<()> {
        let library = self.programs.join("libhesper_test_layer.so");
        let text = format!(
            r#"{{
  "file_format_version": "1.2.0",
  "layer": {{
    "name": "VK_LAYER_HESPER_measure",
    "type": "GLOBAL",
    "library_path": "{}",
    "api_version": "1.4.0",
    "implementation_version": "1",
    "description": "Exportable memory, a driver that does nothing"
  }}
}}
"#,
            library.display()
        );
        fs::write(self.folder.path().join("layer.json"), text)
    }

    /// A command that runs `program` in the environment. `layer` is the layer's mode in it.
    fn in_environment(&self, program: impl AsRef<OsStr>, icd: &str, layer: &str) -> Command {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../env/run");
        let mut command = Command::new(run);
        command
            .arg(program)
            .stdin(Stdio::null())
            .env(
                "VK_DRIVER_FILES",
                format!("/usr/share/vulkan/icd.d/{icd}_icd.json"),
            )
            .env_remove("VK_INSTANCE_LAYERS");
        if !layer.is_empty() {
            command
                .env("VK_ADD_LAYER_PATH", self.folder.path())
                .env("VK_INSTANCE_LAYERS", "VK_LAYER_HESPER_measure")
                .env("HESPER_LAYER", layer);
        }
        command
    }

    fn serve(&self, driver: Driver, side: Side) -> Result<Server, String> {
        let name = format!("{}-{}", side.name(), driver.name());
        let socket = self.folder.path().join(&name);
        let log = self.folder.path().join(format!("{name}.log"));
        let hesper = self.programs.join("hesper");
        let program = match side {
            Side::Reference => OsStr::new("virgl_test_server"),
            _ => hesper.as_os_str(),
        };
        let mut command = self.in_environment(program, "lvp", driver.layer(side));
        match side {
            Side::Reference => command.args(["--venus", "--no-virgl"]),
            Side::Isolated => command.args(["vtest", "--isolate=on"]),
            Side::Together => command.args(["vtest", "--isolate=off"]),
            Side::Hesper | Side::Native => command.arg("vtest"),
        };
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let process = command
            .arg("--socket-path")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("tests/env/run: {error}"))?;
        let mut server = Server {
            driver,
            side,
            process,
            socket,
        };
        let until = Instant::now() + PATIENCE;
        while !server.socket.exists() {
            let ended = server.process.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || Instant::now() > until {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the server {name} does not listen: {said}"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Runs the test client and returns its output.
    fn client(
        &self,
        driver: Driver,
        server: Option<&Server>,
        arguments: &[&str],
    ) -> Result<String, String> {
        let program = self.programs.join("hesper-test-client");
        let mut command = match server {
            Some(server) => {
                let mut command = self.in_environment(program, "virtio", "");
                command
                    .env("VN_DEBUG", "vtest")
                    .env("VTEST_SOCKET_NAME", &server.socket)
                    .arg("--server")
                    .arg(server.process.id().to_string());
                command
            }
            None => self.in_environment(program, "lvp", driver.layer(Side::Native)),
        };
        let output = command
            .args(arguments)
            .output()
            .map_err(|error| format!("tests/env/run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !text.is_empty() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {text} {}", output.status, errors.trim()))
    }

    /// Runs a benchmark of the client.
    pub(crate) fn measure(
        &self,
        driver: Driver,
        side: Side,
        case: &str,
    ) -> Result<Measured, String> {
        let mut servers = self.servers.iter();
        let server = servers.find(|one| one.driver == driver && one.side == side);
        let text = self.client(driver, server, &["bench", case])?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |text: &str| text.parse::<f64>().map_err(|error| error.to_string());
        match words.as_slice() {
            ["bench", _, elapsed, "cpu", client, "server", server] => Ok(Measured {
                elapsed: number(elapsed)?,
                client: number(client)?,
                server: match side {
                    Side::Native => f64::NAN,
                    _ => number(server)?,
                },
            }),
            _ => Err(text),
        }
    }

    /// Measures memory once a client has a device, with a new server unless `side` is native.
    pub(crate) fn footprint(&self, side: Side) -> Result<Footprint, String> {
        let driver = Driver::Lavapipe;
        let server = match side {
            Side::Native => None,
            _ => Some(self.serve(driver, side)?),
        };
        let text = self.client(driver, server.as_ref(), &["footprint"])?;
        let numbers: Vec<f64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers.as_slice() {
            &[own, own_anonymous, pss, anonymous, processes] => Ok(Footprint {
                client: Memory {
                    pss: own,
                    anonymous: own_anonymous,
                },
                server: Memory { pss, anonymous },
                processes,
            }),
            _ => Err(text),
        }
    }
}
