//! Compute shaders that do harm. They include no descriptors and take eight bytes of push
//! constants.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "included by programs that each use their own part"
)]

/// Writes to the address in the push constants. Most addresses crash a driver that computes on the
/// CPU, in a thread of its own.
pub const WILD: &[u8] = include_bytes!("../programs/client/shaders/wild.comp.spv");

/// Never ends.
pub const ENDLESS: &[u8] = include_bytes!("../programs/client/shaders/endless.comp.spv");

/// A shader that does nothing but ask a driver of the tests for something, such as `hesper: crash`
/// (`venus/tests/null-driver/src/misdeed.rs`).
pub fn asking(text: &str) -> Vec<u8> {
    const HEADER: [u32; 5] = [0x0723_0203, 0x0001_0000, 0, 6, 0];
    let main = string("main");
    let text = string(text);
    let instructions: [(u32, &[u32]); 11] = [
        // OpCapability Shader
        (17, &[1]),
        // OpMemoryModel Logical GLSL450
        (14, &[0, 1]),
        // OpEntryPoint GLCompute %1 "main"
        (15, &[&[5, 1], main.as_slice()].concat()),
        // OpExecutionMode %1 LocalSize 1 1 1
        (16, &[1, 17, 1, 1, 1]),
        // %2 = OpString text
        (7, &[&[2], text.as_slice()].concat()),
        // %3 = OpTypeVoid
        (19, &[3]),
        // %4 = OpTypeFunction %3
        (33, &[4, 3]),
        // %1 = OpFunction %3 None %4
        (54, &[3, 1, 0, 4]),
        // %5 = OpLabel
        (248, &[5]),
        // OpReturn
        (253, &[]),
        // OpFunctionEnd
        (56, &[]),
    ];
    let words = instructions.iter().flat_map(|(code, operands)| {
        let length = operands.len() as u32 + 1;
        std::iter::once(length << 16 | code).chain(operands.iter().copied())
    });
    let words = HEADER.into_iter().chain(words);
    words.flat_map(u32::to_le_bytes).collect()
}

/// A literal string of SPIR-V: UTF-8, a zero byte, and zeros up to a whole word.
fn string(text: &str) -> Vec<u32> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((bytes.len() / 4 + 1) * 4, 0);
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, &b| word << 8 | u32::from(b))
    };
    bytes.chunks_exact(4).map(word).collect()
}
