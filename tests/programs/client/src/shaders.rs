//! The compiled shaders of `shaders/`, and the CPU's version of `scramble.comp`.

/// Compute: integer scrambling.
pub(crate) const SCRAMBLE: &[u8] = include_bytes!("../shaders/scramble.comp.spv");
/// Compute: shared memory and atomics.
pub(crate) const HISTOGRAM: &[u8] = include_bytes!("../shaders/histogram.comp.spv");
/// Compute: descriptor indexing.
pub(crate) const GATHER: &[u8] = include_bytes!("../shaders/gather.comp.spv");
/// Compute: a storage image, a uniform buffer and a texel buffer.
pub(crate) const PAINT: &[u8] = include_bytes!("../shaders/paint.comp.spv");
/// Vertex: a triangle placed by push constants.
pub(crate) const TRIANGLE: &[u8] = include_bytes!("../shaders/triangle.vert.spv");
/// Fragment: the interpolated colour.
pub(crate) const SHADE: &[u8] = include_bytes!("../shaders/shade.frag.spv");
/// Vertex: positions, texture coordinates and offsets from vertex buffers.
pub(crate) const QUAD: &[u8] = include_bytes!("../shaders/quad.vert.spv");
/// Fragment: a texture.
pub(crate) const TEXTURE: &[u8] = include_bytes!("../shaders/texture.frag.spv");

/// Ray generation: the ray's place in the launch, and the number of the group.
pub(crate) const LAUNCH: &[u8] = include_bytes!("../shaders/launch.rgen.spv");

/// Converts the bytes of a shader to SPIR-V words.
pub(crate) fn words(shader: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |word, &b| word << 8 | u32::from(b))
    };
    shader.chunks_exact(4).map(word).collect()
}

/// Computes on the CPU what `scramble.comp` makes of a word.
pub(crate) fn scramble(word: u32, seed: u32, rounds: u32) -> u32 {
    (0..rounds).fold(word.wrapping_add(seed), |value, _| {
        let value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value ^ value >> 13
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shader_is_spir_v() {
        for shader in [
            SCRAMBLE, HISTOGRAM, GATHER, PAINT, TRIANGLE, SHADE, QUAD, TEXTURE, LAUNCH,
        ] {
            assert_eq!(shader.len() % 4, 0);
            assert_eq!(words(shader)[0], 0x0723_0203);
        }
    }
}
