#version 450
// Never ends. Some compilers bound the rounds of one loop, but not those of loops in loops.
layout(local_size_x = 1) in;

layout(push_constant) uniform Start {
    uint value;
} start;

shared uint word;

bool waits() {
    return atomicAdd(word, 0u) == start.value;
}

void main() {
    word = start.value;
    barrier();
    while (waits()) {
        while (waits()) {
            while (waits()) {
                while (waits()) {
                }
            }
        }
    }
}
