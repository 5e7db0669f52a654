// A rectangle whose corners come as push constants.
// Compiled by `make.sh` beside it; quad.vert.spv is what the program embeds.
#version 450

layout(push_constant) uniform Quad {
    vec4 area;      // left, top, right, bottom in clip space
    ivec4 channels; // see quad.frag
} quad;

layout(location = 0) out vec2 at;

void main() {
    vec2 corner = vec2(gl_VertexIndex & 1, gl_VertexIndex >> 1);
    at = corner;
    gl_Position = vec4(mix(quad.area.xy, quad.area.zw, corner), 0.0, 1.0);
}
