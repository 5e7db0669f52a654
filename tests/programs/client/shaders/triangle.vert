#version 450
// Draws a triangle without vertex buffers. The push constants move, scale and colour it.
layout(push_constant) uniform Arguments { vec2 offset; float scale; float depth; vec4 colour; };
layout(location = 0) out vec4 shade;

void main() {
    vec2 corners[3] = vec2[](vec2(-1.0, -1.0), vec2(1.0, -1.0), vec2(-1.0, 1.0));
    gl_Position = vec4(corners[gl_VertexIndex % 3] * scale + offset, depth, 1.0);
    shade = colour * vec4(1.0, gl_VertexIndex == 1 ? 0.5 : 1.0, gl_VertexIndex == 2 ? 0.25 : 1.0, 1.0);
}
