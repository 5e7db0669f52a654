#version 450
// Uses only integer arithmetic, so that every correct driver gives the same words. The CPU's
// version is `scramble` in src/shaders.rs.
layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 1) const uint ROUNDS = 4;
layout(set = 0, binding = 0) buffer Words { uint words[]; };
layout(push_constant) uniform Arguments { uint count; uint seed; };

void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i >= count) return;
    uint value = words[i] + seed;
    for (uint round = 0; round < ROUNDS; round++) {
        value = value * 1664525u + 1013904223u;
        value ^= value >> 13;
    }
    words[i] = value;
}
