#version 450
#extension GL_EXT_nonuniform_qualifier : require
// Descriptor indexing: invocation i reads from buffer number i of a partially bound array.
layout(local_size_x = 1) in;
layout(set = 0, binding = 0) buffer Result { uint result[]; };
layout(set = 0, binding = 1) readonly buffer Source { uint words[]; } sources[];

void main() {
    uint i = gl_GlobalInvocationID.x;
    result[i] = sources[nonuniformEXT(i * 3u)].words[i];
}
