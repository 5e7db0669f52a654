//! Tests of the control socket.

use std::sync::Mutex;

use super::client::absolute;
use super::*;

/// Records the requests; knows scanout 0 only.
#[derive(Default)]
struct Noted(Mutex<Vec<String>>);

impl Noted {
    fn note(&self, scanout: u32, text: String) -> Result<(), String> {
        self.0.lock().unwrap().push(text);
        if scanout == 0 {
            Ok(())
        } else {
            Err(format!("no scanout {scanout}"))
        }
    }
}

impl Controls for Noted {
    fn screenshot(&self, scanout: u32, file: &Path) -> Result<(), String> {
        self.note(scanout, format!("screenshot {scanout} {}", file.display()))
    }
    fn screenshot_bytes(&self, scanout: u32) -> Result<Vec<u8>, String> {
        self.note(scanout, format!("screenshot {scanout}"))?;
        Ok(b"a picture\nof two lines".to_vec())
    }
    fn resize(&self, scanout: u32, size: Size) -> Result<(), String> {
        self.note(scanout, format!("resize {scanout} {size:?}"))
    }
    fn plug(&self, scanout: u32) -> Result<(), String> {
        self.note(scanout, format!("plug {scanout}"))
    }
    fn unplug(&self, scanout: u32) -> Result<(), String> {
        self.note(scanout, format!("unplug {scanout}"))
    }
    fn show(&self, shown: bool) -> Result<(), String> {
        self.note(0, format!("show {shown}"))
    }
    fn status(&self) -> String {
        "{}".to_owned()
    }
    fn counters(&self) -> String {
        r#"{"windows":[]}"#.to_owned()
    }
    fn start_trace(&self) -> Result<(), String> {
        self.note(0, "start".to_owned())
    }
    fn stop_trace(&self) -> Result<Vec<u8>, String> {
        let mut noted = self.0.lock().unwrap();
        match noted.last().is_some_and(|last| last == "start") {
            true => {
                noted.push("stop".to_owned());
                Ok(b"{\n}\n".to_vec())
            }
            false => Err("no trace".to_owned()),
        }
    }
    fn quit(&self) {
        self.note(0, "quit".to_owned()).unwrap();
    }
}

#[test]
fn a_client_is_answered_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let noted = Arc::new(Noted::default());
    serve(
        UnixListener::bind(&path).unwrap(),
        Arc::clone(&noted) as Arc<dyn Controls>,
    )
    .unwrap();

    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ask(&path, &words("status")), Ok("{}".to_owned()));
    for name in ["my shot.png", "1 2.PNG"] {
        let shot = folder.path().join(name);
        let line = format!("screenshot {}", shot.display());
        assert_eq!(ask(&path, &words(&line)), Ok(String::new()));
        assert_eq!(std::fs::read(shot).unwrap(), b"a picture\nof two lines");
    }
    let nowhere = ask(&path, &words("screenshot 0 /nowhere/x.png")).unwrap_err();
    assert!(nowhere.contains("/nowhere/x.png"), "{nowhere}");
    // The form for programs that let Hesper write.
    let mut client = UnixStream::connect(&path).unwrap();
    writeln!(client, "screenshot 0 /tmp/my shot.png").unwrap();
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert_eq!(answer, "ok \n");
    assert_eq!(
        ask(&path, &words("screenshot 4 /x.png")),
        Err("no scanout 4".to_owned())
    );
    assert_eq!(ask(&path, &words("resize 0 800x600")), Ok(String::new()));
    assert_eq!(
        ask(&path, &words("counters")),
        Ok(r#"{"windows":[]}"#.to_owned())
    );
    assert_eq!(ask(&path, &words("unplug 0")), Ok(String::new()));
    assert_eq!(ask(&path, &words("plug 0")), Ok(String::new()));
    assert_eq!(ask(&path, &words("hide")), Ok(String::new()));
    assert_eq!(ask(&path, &words("show")), Ok(String::new()));
    assert_eq!(ask(&path, &words("quit")), Ok(String::new()));
    // `quit` is answered before it is done.
    let end = Instant::now() + Duration::from_secs(60);
    while !noted.0.lock().unwrap().iter().any(|done| done == "quit") {
        assert!(Instant::now() < end, "nothing ends");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        *noted.0.lock().unwrap(),
        [
            "screenshot 0",
            "screenshot 0",
            "screenshot 0",
            "screenshot 0 /tmp/my shot.png",
            "screenshot 4",
            "resize 0 Size { width: 800, height: 600 }",
            "unplug 0",
            "plug 0",
            "show false",
            "show true",
            "quit"
        ]
    );
    for (line, named) in [
        ("dance", "'dance'"),
        ("", "''"),
        ("resize 0 0x0", "'0x0'"),
        ("resize x 800x600", "'x'"),
        ("screenshot", "FILE.png"),
        ("screenshot 1", "FILE.png"),
        ("screenshot x.jpg", ".png"),
        ("status\nquit", "one line"),
        ("unplug two", "'two'"),
    ] {
        let error = ask(&path, &words(line)).unwrap_err();
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn a_trace_is_written_by_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let noted = Arc::new(Noted::default());
    serve(UnixListener::bind(&path).unwrap(), noted).unwrap();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let file = folder.path().join("my trace.json");
    let stop = format!("trace stop {}", file.display());
    // Files stay as they are while there is no trace to write.
    assert_eq!(ask(&path, &words(&stop)), Err("no trace".to_owned()));
    assert!(!file.exists());
    std::fs::write(&file, "an earlier trace").unwrap();
    assert_eq!(ask(&path, &words(&stop)), Err("no trace".to_owned()));
    assert_eq!(std::fs::read(&file).unwrap(), b"an earlier trace");
    assert_eq!(ask(&path, &words("trace start")), Ok(String::new()));
    // A file that cannot be written ends no trace.
    let error = ask(&path, &words("trace stop /nowhere/x.json")).unwrap_err();
    assert!(error.contains("/nowhere/x.json"), "{error}");
    assert_eq!(ask(&path, &words(&stop)), Ok(String::new()));
    assert_eq!(std::fs::read(&file).unwrap(), b"{\n}\n");
    assert_eq!(ask(&path, &words("trace start")), Ok(String::new()));
    let text = ask(&path, &words("trace stop -"));
    assert_eq!(text, Ok("{\n}".to_owned()));
    // Hesper itself writes no file.
    let mut client = UnixStream::connect(&path).unwrap();
    writeln!(client, "{stop}").unwrap();
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    assert!(
        answer.starts_with("error ") && answer.contains("trace stop -"),
        "{answer}"
    );
    for (line, named) in [
        ("trace", "is missing"),
        ("trace stop", "FILE"),
        ("trace start now", "'start now'"),
        ("trace pause", "'pause'"),
    ] {
        let error = ask(&path, &words(line)).unwrap_err();
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn a_relative_path_is_seen_from_the_client() {
    let words = ["screenshot", "0", "shot.png"].map(str::to_owned);
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        absolute(&words).unwrap(),
        format!("screenshot 0 {}/shot.png", here.display())
    );
}

#[test]
fn a_silent_socket_and_a_missing_one_give_different_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let status = ["status".to_owned()];
    let error = ask(&path, &status).unwrap_err();
    assert!(error.contains("no such socket"), "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    let hangs_up = thread::spawn(move || drop(listener.accept().unwrap()));
    let error = ask(&path, &status).unwrap_err();
    hangs_up.join().unwrap();
    assert!(
        error.contains("closed the connection") && error.contains("--control"),
        "{error}"
    );
    let error = ask(&path, &status).unwrap_err();
    assert!(error.contains("has ended"), "{error}");
    let long = folder.path().join("x".repeat(200));
    let error = ask(&long, &status).unwrap_err();
    assert!(error.contains("shorter"), "{error}");
}

#[test]
fn a_vm_monitor_on_the_control_socket_is_sent_away_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let noted = Arc::new(Noted::default());
    serve(UnixListener::bind(&path).unwrap(), noted).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client
        .write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    let mut rest = Vec::new();
    Read::read_to_end(&mut client, &mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn too_many_clients_are_turned_away_and_the_socket_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    serve(
        UnixListener::bind(&path).unwrap(),
        Arc::new(Noted::default()),
    )
    .unwrap();
    let idle: Vec<_> = (0..MAX_CLIENTS)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let mut one_more = UnixStream::connect(&path).unwrap();
    assert_eq!(
        io::Read::read(&mut one_more, &mut [0]).unwrap(),
        0,
        "it is turned away"
    );
    drop(idle);
    let end = Instant::now() + Duration::from_secs(60);
    while ask(&path, &["status".to_owned()]).is_err() {
        assert!(Instant::now() < end, "nobody is served any more");
    }
}

#[test]
fn an_endless_line_ends_only_its_own_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    serve(
        UnixListener::bind(&path).unwrap(),
        Arc::new(Noted::default()),
    )
    .unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    // Writing fails when the server has closed the connection.
    while client.write_all(&[b'a'; 4096]).is_ok() {}
    assert_eq!(ask(&path, &["status".to_owned()]), Ok("{}".to_owned()));
}
