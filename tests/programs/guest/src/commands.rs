//! The commands of the test program.

use std::io::{self, BufRead, Write};
use std::process::Command;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::framebuffer;
use crate::input::{self, Inputs};
use crate::kms::Card;
use crate::wayland::Wayland;

const HELP: &str = "driver | modes OUTPUT | wait-mode OUTPUT WIDTH HEIGHT SECONDS | show OUTPUT SEED \
[WIDTH HEIGHT] | update OUTPUT SEED X Y WIDTH HEIGHT | blank OUTPUT | span SEED X Y | animate OUTPUT FRAMES RATE | cursor OUTPUT SEED HOT_X HOT_Y | \
cursor-move OUTPUT X Y | cursor-hide OUTPUT | framebuffer SEED | input-list | input-open NAME | \
wayland | wayland-window R G B WIDTH HEIGHT | wayland-keymap | wayland-close | input-take NAME QUIET_MS | input-rest NAME QUIET_MS | close | sh COMMAND...";

/// Reads commands from `input` until it ends, and answers each on `output`.
pub(crate) fn serve(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut card = None;
    let mut inputs = Inputs::default();
    let mut wayland = None;
    writeln!(output, "ready")?;
    output.flush()?;
    for line in input.lines() {
        let line = line?;
        let done = match on_wayland(&mut wayland, line.trim()) {
            Ok(None) => answer(&mut card, &mut inputs, line.trim()),
            Ok(Some(text)) => Ok(text),
            Err(error) => Err(error),
        };
        match done {
            Ok(text) => writeln!(output, "ok {}", text.trim_end().replace('\n', " | "))?,
            Err(error) => writeln!(output, "error {error}")?,
        }
        output.flush()?;
    }
    Ok(())
}

/// The words of a command line after the command's name.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl Words<'_> {
    fn next<T: FromStr>(&mut self) -> io::Result<T> {
        self.optional()?
            .ok_or_else(|| io::Error::other("a word is missing; see 'help'"))
    }

    fn optional<T: FromStr>(&mut self) -> io::Result<Option<T>> {
        self.0
            .next()
            .map(|word| {
                word.parse()
                    .map_err(|_| io::Error::other(format!("'{word}' is not a number")))
            })
            .transpose()
    }
}

fn answer(card: &mut Option<Card>, inputs: &mut Inputs, line: &str) -> io::Result<String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    if command == "close" {
        *card = None;
        return Ok(String::new());
    }
    if let Some(done) = without_card(inputs, command, rest)? {
        return Ok(done);
    }
    let card = match card {
        Some(card) => card,
        None => card.insert(Card::open()?),
    };
    let mut words = Words(rest.split_whitespace());
    match command {
        "driver" => card.driver(),
        "modes" => Ok(list(&card.modes(words.next()?)?)),
        "wait-mode" => wait_mode(card, &mut words),
        "show" => {
            let (output, seed) = (words.next()?, words.next()?);
            let size = match words.optional()? {
                Some(width) => Some((width, words.next()?)),
                None => None,
            };
            let (width, height) = card.show(output, seed, size)?;
            Ok(format!("{width} {height}"))
        }
        "update" => {
            let (output, seed) = (words.next()?, words.next()?);
            let area = (words.next()?, words.next()?, words.next()?, words.next()?);
            card.update(output, seed, area).map(|()| String::new())
        }
        "span" => {
            let (seed, x, y) = (words.next()?, words.next()?, words.next()?);
            let (width, height) = card.span(seed, (x, y))?;
            Ok(format!("{width} {height}"))
        }
        "animate" => {
            let (output, frames, rate) = (words.next()?, words.next()?, words.next()?);
            card.animate(output, frames, rate)
                .map(|took| took.to_string())
        }
        "blank" => card.blank(words.next()?).map(|()| String::new()),
        "cursor" => {
            let (output, seed) = (words.next()?, words.next()?);
            let hot = (words.next()?, words.next()?);
            card.cursor(output, seed, hot).map(|()| String::new())
        }
        "cursor-move" => {
            let output = words.next()?;
            card.place_cursor(output, words.next()?, words.next()?)
                .map(|()| String::new())
        }
        "cursor-hide" => card.hide_cursor(words.next()?).map(|()| String::new()),
        _ => Err(io::Error::other(format!(
            "'{command}' is not one of: {HELP}"
        ))),
    }
}

/// Runs a command of the Wayland program; `None` if `line` is another command.
fn on_wayland(wayland: &mut Option<Wayland>, line: &str) -> io::Result<Option<String>> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = Words(rest.split_whitespace());
    let connection = wayland
        .as_mut()
        .ok_or_else(|| io::Error::other("'wayland' comes first"));
    match command {
        "wayland" => Ok(Some(wayland.insert(Wayland::connect()?).globals())),
        "wayland-window" => {
            let colour = [words.next()?, words.next()?, words.next()?];
            connection?.window(colour, words.next()?, words.next()?)?;
            Ok(Some(String::new()))
        }
        "wayland-keymap" => connection?.keymap().map(Some),
        "wayland-close" => {
            *wayland = None;
            Ok(Some(String::new()))
        }
        _ => Ok(None),
    }
}

/// Runs a command that needs no DRM device; `None` if `command` is another one.
fn without_card(inputs: &mut Inputs, command: &str, rest: &str) -> io::Result<Option<String>> {
    let mut words = Words(rest.split_whitespace());
    match command {
        "input-list" => input::list().map(Some),
        "input-open" => inputs.open(rest).map(Some),
        "input-take" | "input-rest" => {
            let name: String = words.next()?;
            let quiet = Duration::from_millis(words.next()?);
            match command {
                "input-take" => inputs.take(&name, quiet),
                _ => inputs.rest(&name, quiet),
            }
            .map(Some)
        }
        "help" => Ok(Some(HELP.to_owned())),
        "framebuffer" => {
            let (width, height) = framebuffer::fill(Words(rest.split_whitespace()).next()?)?;
            Ok(Some(format!("{width} {height}")))
        }
        "sh" => {
            let done = Command::new("sh").args(["-c", rest]).output()?;
            let text = String::from_utf8_lossy(&done.stdout).into_owned()
                + &String::from_utf8_lossy(&done.stderr);
            if done.status.success() {
                Ok(Some(text))
            } else {
                Err(io::Error::other(format!(
                    "{}: {}",
                    done.status,
                    text.replace('\n', " | ")
                )))
            }
        }
        _ => Ok(None),
    }
}

fn wait_mode(card: &Card, words: &mut Words<'_>) -> io::Result<String> {
    let output = words.next()?;
    let wanted: (u16, u16) = (words.next()?, words.next()?);
    let until = Instant::now() + Duration::from_secs(words.next()?);
    loop {
        let modes = card.modes(output)?;
        if modes.first() == Some(&wanted) {
            return Ok(list(&modes));
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!(
                "the modes are still {}",
                list(&modes)
            )));
        }
        sleep(Duration::from_millis(50));
    }
}

fn list(modes: &[(u16, u16)]) -> String {
    let texts: Vec<String> = modes.iter().map(|(w, h)| format!("{w}x{h}")).collect();
    texts.join(" ")
}
