// One layer of a bundle at its stated widths: golden spikes of the layer before (or the images) in, and this
// layer's spikes compared with the golden ones. From the bundle's folder, for layer 1 and two samples:
//
//     iverilog -g2005 -DSAMPLES=2 -DLAYER='"network/layer1.vh"' -o layer_tb layer_tb.v && vvp layer_tb
//
// Registers have the stated widths and nothing more: a value that left its width would wrap and be seen.
`timescale 1ns / 1ps
`ifndef LAYER
`define LAYER "network/layer1.vh"
`endif

module layer_tb;
`include `LAYER
`ifdef SAMPLES
  localparam N = `SAMPLES < samples ? `SAMPLES : samples;
`else
  localparam N = samples;
`endif
  localparam PLACES = in_channels * in_rows * in_columns, NEURONS = out_channels * out_rows * out_columns;
  localparam WEIGHTS = out_channels * in_channels * kernel_rows * kernel_columns;
  localparam IN_FRAME = (PLACES + 3) / 4, FRAME = (NEURONS + 3) / 4;
  localparam WORDS = weight_bits == 8 ? WEIGHTS : (WEIGHTS + 3) / 4;
  localparam ARRIVING = layer == 0 ? N * PLACES : N * steps * IN_FRAME;

  reg [7:0] weight[0:WORDS-1], arriving[0:ARRIVING-1], golden[0:N*steps*FRAME-1];
  reg signed [8*constant_bytes-1:0] offset[0:out_channels-1], step[0:out_channels-1];
  reg signed [membrane_bits-1:0] u[0:NEURONS-1];
  reg signed [17:0] n[0:NEURONS-1];
  reg signed [threshold_bits-1:0] shifted, up, down;
  reg signed [1:0] spike, expected, pair;
  reg signed [7:0] w;
  reg signed [31:0] m;
  integer s, t, o, y, x, i, ky, kx, iy, ix, at, k, compared, differing;
  reg [8*64-1:0] name;

  initial begin
    $sformat(name, "network/layer%0d_weight.hex", layer);
    $readmemh(name, weight);
    $sformat(name, "network/layer%0d_offset.hex", layer);
    $readmemh(name, offset);
    $sformat(name, "network/layer%0d_step.hex", layer);
    $readmemh(name, step);
    if (layer == 0) name = "vectors/images.hex";
    else $sformat(name, "golden/layer%0d_spikes.hex", layer - 1);
    $readmemh(name, arriving, 0, ARRIVING - 1);
    $sformat(name, "golden/layer%0d_spikes.hex", layer);
    $readmemh(name, golden, 0, N * steps * FRAME - 1);
    compared = 0;
    differing = 0;
    for (s = 0; s < N; s = s + 1) begin
      for (at = 0; at < NEURONS; at = at + 1) begin
        u[at] = 0;
        n[at] = 0;
      end
      for (t = 1; t <= steps; t = t + 1)
        for (o = 0; o < out_channels; o = o + 1)
          for (y = 0; y < out_rows; y = y + 1)
            for (x = 0; x < out_columns; x = x + 1) begin
              at = (o * out_rows + y) * out_columns + x;
              if (layer > 0 || t == 1) synapses;
              fire;
            end
    end
    $display("layer %0d: %0d spikes compared, %0d differ", layer, compared, differing);
    if (differing != 0) $fatal;
    $finish;
  end

  // Add the weight of every arriving spike (of every pixel, times its value) to U.
  task synapses;
    for (i = 0; i < in_channels; i = i + 1)
      for (ky = 0; ky < kernel_rows; ky = ky + 1)
        for (kx = 0; kx < kernel_columns; kx = kx + 1) begin
          iy = y * stride + ky - padding;
          ix = x * stride + kx - padding;
          if (iy >= 0 && iy < in_rows && ix >= 0 && ix < in_columns) begin
            k = (i * in_rows + iy) * in_columns + ix;
            if (layer == 0) m = arriving[s * PLACES + k];
            else begin
              pair = arriving[(s * steps + t - 1) * IN_FRAME + k / 4] >> 2 * (k % 4);
              m = layer == 1 ? pair * (1 << amplitude_shift) : pair;
            end
            k = ((o * in_channels + i) * kernel_rows + ky) * kernel_columns + kx;
            if (weight_bits == 8) w = weight[k];
            else begin
              pair = weight[k / 4] >> 2 * (k % 4);
              w = pair;
            end
            if (m != 0) u[at] = u[at] + w * m;
          end
        end
  endtask

  // Compare U << f with A + j * D, and the spike with the golden one.
  task fire;
    begin
      shifted = u[at];
      shifted = shifted <<< fraction_bits;
      if (layer == 0) begin
        up = offset[o] + step[o] * (t <= levels ? t : 0);
        spike = t <= levels && shifted >= up ? 1 : 0;
      end else begin
        down = offset[o] + step[o] * n[at];
        up = down + step[o];
        spike = n[at] < largest_count && shifted >= up ? 1 : n[at] > 0 && shifted < down ? -1 : 0;
        n[at] = n[at] + spike;
      end
      expected = golden[(s * steps + t - 1) * FRAME + at / 4] >> 2 * (at % 4);
      compared = compared + 1;
      if (spike !== expected) begin
        differing = differing + 1;
        if (differing < 5)
          $display("sample %0d, step %0d, neuron %0d: %0d, golden %0d", s, t, at, spike, expected);
      end
    end
  endtask
endmodule
