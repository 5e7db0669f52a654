//! [`Logs`]: lines that workers log, as lines of this process' log.
//!
//! A worker may be a guest's, and a guest can make contexts without end. So all workers together
//! may write so many lines of each target in a period, as contexts in this process may. What is
//! beyond is logged at the level `debug`, as `hesper_system::LogLimit` does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use hesper_system::sync::Lock;
use hesper_system::{LOG_LINES, LOG_PERIOD, RateLimit};
use log::Level;

use crate::isolation::message::LONGEST_TEXT;

/// Targets with a limit of their own. All others share one.
const TARGETS: usize = 32;
/// The longest target.
const TARGET: usize = 64;
/// The target of lines whose own is no name of a module.
const OTHER: &str = "hesper_worker";

/// The limits of all targets.
#[derive(Default)]
pub(super) struct Logs {
    limits: Mutex<HashMap<String, RateLimit>>,
}

/// A line as it is written.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    level: Level,
    target: &'a str,
    text: Cow<'a, str>,
}

impl Logs {
    /// Writes a line of a worker at a level by its number, as `log::Level`. A wrong number is taken
    /// for the least important one.
    pub(super) fn write_at(&self, level: u8, line: &str) {
        let named = Level::iter().find(|named| *named as usize == usize::from(level));
        self.write(named.unwrap_or(Level::Trace), line);
    }

    /// Writes a line of a worker: target, a zero byte, text.
    fn write(&self, level: Level, line: &str) {
        let (target, text) = line.split_once('\0').unwrap_or((OTHER, line));
        let target = if is_target(target) { target } else { OTHER };
        if !log::log_enabled!(target: target, level) {
            return;
        }
        let line = self.limited(level, target, clean(text), Instant::now());
        log::log!(target: line.target, line.level, "{}", line.text);
    }

    /// The line, within the limit of its target.
    fn limited<'a>(
        &self,
        level: Level,
        target: &'a str,
        text: Cow<'a, str>,
        now: Instant,
    ) -> Line<'a> {
        let line = |level, text| Line {
            level,
            target,
            text,
        };
        if level > Level::Info {
            // Somebody has asked for all of them.
            return line(level, text);
        }
        let mut limits = self.limits.locked();
        let is_known = limits.contains_key(target) || limits.len() < TARGETS;
        let key = if is_known { target } else { OTHER };
        let limit = limits
            .entry(key.to_owned())
            .or_insert_with(|| RateLimit::new(LOG_LINES, LOG_PERIOD));
        match limit.admit(now) {
            Some(0) => line(level, text),
            Some(more) => {
                let text = format!("{text} ({more} more lines of {target} before it)");
                line(level, text.into())
            }
            None => line(Level::Debug, text),
        }
    }
}

/// Whether a text can be the name of a module.
fn is_target(text: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
    !text.is_empty() && text.len() <= TARGET && text.chars().all(is_usual)
}

/// Text of a worker without control characters, and not too long. Lines stay lines.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control();
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    if text.chars().all(is_plain) {
        return text.into();
    }
    let plain = |c: char| if is_plain(c) { c } else { ' ' };
    text.chars().map(plain).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_many_workers_is_cut_for_each_target() {
        let logs = Logs::default();
        let now = Instant::now();
        let level = |target: &str, now| logs.limited(Level::Warn, target, "x".into(), now).level;
        for _ in 0..LOG_LINES {
            assert_eq!(level("hesper_venus", now), Level::Warn);
        }
        for _ in 0..1000 {
            assert_eq!(level("hesper_venus", now), Level::Debug);
        }
        assert_eq!(
            level("hesper", now),
            Level::Warn,
            "it has a limit of its own"
        );
        let next = logs.limited(Level::Warn, "hesper_venus", "y".into(), now + LOG_PERIOD);
        assert_eq!(next.text, "y (1000 more lines of hesper_venus before it)");
        // Targets that somebody makes up share one limit.
        let passed = (0..100_000)
            .filter(|number| level(&format!("made_up_{number}"), now) == Level::Warn)
            .count();
        assert!(passed <= TARGETS + LOG_LINES as usize, "{passed}");
        assert!(logs.limits.locked().len() <= TARGETS + 1);
        let detail = logs.limited(Level::Trace, "hesper_venus", "z".into(), now);
        assert_eq!(detail.level, Level::Trace);
    }

    #[test]
    fn text_of_a_worker_cannot_garble_the_log() {
        assert_eq!(clean("a\n\u{1b}[31mb"), "a  [31mb");
        assert_eq!(clean("plain"), "plain");
        let long = "é".repeat(LONGEST_TEXT);
        assert!(clean(&long).len() <= LONGEST_TEXT);
        assert!(is_target("hesper_venus::ring"));
        assert!(!is_target("a b") && !is_target("") && !is_target(&"x".repeat(65)));
        Logs::default().write_at(1, "no zero byte");
        Logs::default().write_at(77, "hesper\0no level");
    }
}
