// The first kernel of the course: c = a + b, one work-item an element (Zhang 2015).

__kernel void vector_add(__global const float *a, __global const float *b, __global float *c, int n)
{
    int i = get_global_id(0);
    if (i < n)  // the last work-group may reach past the end
        c[i] = a[i] + b[i];
}
