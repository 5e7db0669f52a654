#version 450
// Uses a storage image, a uniform buffer and a uniform texel buffer in one set.
layout(local_size_x = 8, local_size_y = 8) in;
layout(set = 0, binding = 0, rgba8) uniform writeonly image2D target;
layout(set = 0, binding = 1) uniform Colour { uvec4 colour; };
layout(set = 0, binding = 2) uniform utextureBuffer ramp;

void main() {
    ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    uint step = texelFetch(ramp, at.x).x;
    uvec4 texel = (colour + uvec4(step, uint(at.y), 0u, 0u)) & 255u;
    imageStore(target, at, vec4(texel) / 255.0);
}
