//! `test-backend-ops` of llama.cpp. It compares each operation of ggml's Vulkan backend with the
//! processor's.

use std::process::Stdio;

use crate::differences::Results;
use crate::environment::Driver;

const PROGRAM: &str = "/usr/libexec/x86_64-linux-gnu/llama.cpp-tests/test-backend-ops";

/// Runs the cases of some operations: names separated by commas, or an empty text for all of them.
///
/// A result is `pass`, `unsupported` or `fail`. The program's own exit status is the result of the
/// case `test-backend-ops`.
///
/// # Panics
/// If the program does not start.
#[must_use]
pub fn run(driver: Driver<'_>, operations: &str) -> Results {
    let mut command = driver.command(PROGRAM);
    command.args(["test", "-b", "Vulkan0", "--output", "csv"]);
    if !operations.is_empty() {
        command.args(["-o", operations]);
    }
    let output = command
        // Without this, it does not accept a processor as a GPU.
        .env("GGML_VK_VISIBLE_DEVICES", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let mut results = parse(&String::from_utf8_lossy(&output.stdout));
    results.insert("test-backend-ops".to_owned(), output.status.to_string());
    results
}

/// Reads the table that the program prints.
fn parse(table: &str) -> Results {
    let mut results = Results::new();
    for line in table.lines() {
        let fields = fields(line);
        let [
            _backend,
            operation,
            parameters,
            _mode,
            supported,
            error,
            _registry,
        ] = &fields[..]
        else {
            continue;
        };
        let result = match (supported.as_str(), error.as_str()) {
            ("1" | "yes" | "true", "") => "pass".to_owned(),
            ("supported", _) => continue, // the heads of the columns
            ("0" | "no" | "false", _) => "unsupported".to_owned(),
            // The text of the error is left out, because it has numbers that change.
            _ => "fail".to_owned(),
        };
        let case = format!("{operation}({parameters})");
        // Some cases come twice.
        let same = |number: usize| match number {
            1 => case.clone(),
            _ => format!("{case} again {number}"),
        };
        let name = (1..).map(same).find(|name| !results.contains_key(name));
        results.insert(name.unwrap_or(case), result);
    }
    results
}

/// The fields of a line of comma-separated values, each in quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut rest = line;
    while let Some(quoted) = rest.strip_prefix('"') {
        let mut field = String::new();
        let mut chars = quoted.char_indices().peekable();
        let mut end = quoted.len();
        while let Some((at, char)) = chars.next() {
            if char != '"' {
                field.push(char);
            } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                field.push('"');
            } else {
                end = at + 1;
                break;
            }
        }
        fields.push(field);
        rest = quoted[end..].strip_prefix(',').unwrap_or("");
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let table = r#""backend_name","op_name","op_params","test_mode","supported","error_message","backend_reg_name"
"Vulkan0","ADD","type=f32,ne=[1,2]","test","1","",""
"Vulkan0","ADD","type=f32,ne=[1,2]","test","1","",""
"Vulkan0","MUL","x","test","0","",""
"Vulkan0","SUB","a ""b""","test","1","NMSE = 1",""
Backend Vulkan0: OK
"#;
        let results = parse(table);
        let all: Vec<_> = results
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                ("ADD(type=f32,ne=[1,2])", "pass"),
                ("ADD(type=f32,ne=[1,2]) again 2", "pass"),
                ("MUL(x)", "unsupported"),
                ("SUB(a \"b\")", "fail"),
            ]
        );
    }
}
