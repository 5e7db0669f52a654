#version 450
// Counts the low four bits of every word, with shared memory, a barrier and atomics.
layout(local_size_x = 64) in;
layout(set = 0, binding = 0) readonly buffer Words { uint words[]; };
layout(set = 0, binding = 1) buffer Counts { uint counts[16]; };
layout(push_constant) uniform Arguments { uint count; };
shared uint local_counts[16];

void main() {
    uint lane = gl_LocalInvocationIndex;
    if (lane < 16) local_counts[lane] = 0;
    barrier();
    uint i = gl_GlobalInvocationID.x;
    if (i < count) atomicAdd(local_counts[words[i] & 15u], 1u);
    barrier();
    if (lane < 16) atomicAdd(counts[lane], local_counts[lane]);
}
