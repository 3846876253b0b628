"""Ops that cost no FLOPs by the convention: elementwise work, norms, softmax, losses, pooling, interpolation, look-ups,
sorting, random numbers, copies and views, optimizer updates.
"""

from __future__ import annotations

#: Packets with no formula that cost no FLOPs by the convention above.
FREE = frozenset(
    """
    _fused_adamw_ _fused_adam_ _fused_sgd_ _foreach_add _foreach_add_ _foreach_addcdiv_ _foreach_addcmul_ _foreach_div
    _foreach_div_ _foreach_lerp_ _foreach_mul _foreach_mul_ _foreach_neg _foreach_norm _foreach_pow _foreach_reciprocal_
    _foreach_sqrt _foreach_sqrt_ _foreach_sub _foreach_sub_ _foreach_clamp_min_ _foreach_copy_
    _local_scalar_dense _log_softmax _log_softmax_backward_data _softmax _softmax_backward_data _to_copy
    _unsafe_view _reshape_alias _reshape_copy _conj _neg_view _has_compatible_shallow_copy_type _efficientzerotensor
    native_layer_norm native_layer_norm_backward native_batch_norm native_batch_norm_backward native_group_norm
    native_group_norm_backward _native_batch_norm_legit _batch_norm_no_update batch_norm_backward
    _batch_norm_with_update _fused_rms_norm _fused_rms_norm_backward
    nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss mse_loss_backward
    gelu gelu_backward silu silu_backward relu relu_ threshold_backward sigmoid sigmoid_backward tanh tanh_backward
    native_dropout native_dropout_backward bernoulli bernoulli_ hardtanh hardtanh_backward leaky_relu
    embedding embedding_dense_backward index index_put_ index_put _index_put_impl_ index_select index_add_ gather
    scatter scatter_ scatter_add_ scatter_add masked_fill masked_fill_ masked_select where take slice_backward
    select_backward slice_scatter select_scatter
    add add_ sub sub_ mul mul_ div div_ neg neg_ pow pow_ exp exp_ log log_ log2 log1p sqrt sqrt_ rsqrt reciprocal abs
    sin cos erf erfinv floor ceil round sign clamp clamp_ clamp_min clamp_max clamp_min_ clamp_max_ maximum minimum
    addcmul addcmul_ addcdiv addcdiv_ lerp lerp_ rsub square remainder fmod special_ndtri special_erfinv
    bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __xor__ logical_and logical_or logical_not
    eq ne lt le gt ge isnan isinf isfinite any all
    sum mean var var_mean std max min amax amin argmax argmin cumsum cumprod logsumexp norm linalg_vector_norm prod
    topk sort searchsorted bucketize histc unique _unique2 unique_consecutive nonzero
    max_pool2d_with_indices max_pool2d_with_indices_backward avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d
    _adaptive_avg_pool2d_backward upsample_nearest2d upsample_bilinear2d constant_pad_nd pad reflection_pad2d
    grid_sampler_2d affine_grid_generator
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_zeros new_ones new_full zeros
    zeros_like zero_ zero ones ones_like full full_like fill_ fill arange linspace eye scalar_tensor tril triu randn
    randn_like rand rand_like randint randperm normal normal_ uniform_ uniform random_ multinomial exponential_
    lift lift_fresh lift_fresh_copy detach detach_ alias clone copy_ copy view t transpose permute expand
    squeeze unsqueeze squeeze_ unsqueeze_ select slice split split_with_sizes chunk unbind cat stack repeat flip
    roll as_strided as_strided_ diagonal unfold movedim contiguous resize_ set_ is_same_size record_stream
    pixel_shuffle view_as_real view_as_complex real imag narrow reshape view_copy _pin_memory is_pinned
    _adaptive_avg_pool3d _adaptive_avg_pool3d_backward _amp_foreach_non_finite_check_and_unscale_ _amp_update_scale_
    _chunk_cat _conj_physical _ctc_loss _ctc_loss_backward _cudnn_init_dropout_state _embedding_bag
    _embedding_bag_backward _embedding_bag_dense_backward _embedding_bag_forward_only
    _embedding_bag_per_sample_weights_backward _foreach_abs _foreach_clamp_max_ _foreach_exp _foreach_lerp
    _foreach_log _foreach_max _foreach_maximum_ _foreach_minimum_ _foreach_neg_ _foreach_pow_ _foreach_rsqrt_
    _foreach_sign _foreach_zero_ _fused_adagrad_ _fused_moving_avg_obs_fq_helper _histogramdd_bin_edges
    _histogramdd_from_bin_cts _histogramdd_from_bin_tensors _linalg_check_errors _masked_softmax
    _masked_softmax_backward _pack_padded_sequence _prelu_kernel _prelu_kernel_backward _resize_output_
    _safe_softmax _segment_reduce_backward _thnn_fused_gru_cell _thnn_fused_gru_cell_backward _thnn_fused_lstm_cell
    _thnn_fused_lstm_cell_backward_impl _to_sparse _unique _unsafe_masked_index _unsafe_masked_index_put_accumulate
    _upsample_bilinear2d_aa _upsample_bilinear2d_aa_backward _upsample_nearest_exact1d
    _upsample_nearest_exact1d_backward _weight_norm_interface _weight_norm_interface_backward abs_ acos acosh
    adaptive_max_pool2d adaptive_max_pool2d_backward adaptive_max_pool3d adaptive_max_pool3d_backward alias_copy
    allclose aminmax angle as_strided_copy as_strided_scatter asin asinh atan atan2 atan2_ atanh avg_pool3d
    avg_pool3d_backward binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits bincount
    bitwise_and_ bitwise_left_shift bitwise_or_ bitwise_right_shift block_diag cauchy_ ceil_ celu celu_
    channel_shuffle col2im complex copysign cos_ cosh cosh_ count_nonzero cummax cummin cumprod_ cumsum_ deg2rad
    dequantize diag_embed diagonal_backward diagonal_copy diagonal_scatter digamma digamma_ dist elu elu_
    elu_backward eq_ equal erf_ erfc erfc_ exp2 expand_copy expm1 expm1_ fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_channel_affine_cachemask_backward fake_quantize_per_tensor_affine_cachemask
    fake_quantize_per_tensor_affine_cachemask_backward floor_ floor_divide fmax fmin fmod_ frac frac_
    fractional_max_pool2d fractional_max_pool2d_backward fractional_max_pool3d fractional_max_pool3d_backward frexp
    gcd ge_ gelu_ geometric_ glu glu_backward grid_sampler_2d_backward grid_sampler_3d grid_sampler_3d_backward gt_
    hardshrink hardshrink_ hardshrink_backward hardsigmoid hardsigmoid_ hardsigmoid_backward hardswish hardswish_
    hardswish_backward hash_tensor heaviside histogram huber_loss huber_loss_backward hypot hypot_ i0 igamma igammac
    im2col index_add index_copy index_copy_ index_fill index_fill_ index_reduce isin isneginf isposinf kthvalue lcm
    ldexp le_ leaky_relu_ leaky_relu_backward lgamma linalg_cross log10 log10_ log1p_ log2_ log_normal_
    log_sigmoid_backward log_sigmoid_forward logaddexp logaddexp2 logcumsumexp logical_and_ logical_not_ logical_or_
    logical_xor logical_xor_ logit logit_backward logspace lt_ lu_unpack masked_scatter masked_scatter_
    masked_scatter_backward max_pool3d_with_indices max_pool3d_with_indices_backward max_unpool2d max_unpool3d
    maximum_ median minimum_ mish mish_ mish_backward mode multi_margin_loss multi_margin_loss_backward
    multilabel_margin_loss_backward multilabel_margin_loss_forward mvlgamma nan_to_num nan_to_num_ nanmedian nansum
    narrow_copy native_channel_shuffle ne_ nextafter nonzero_static permute_copy pixel_unshuffle polar polygamma put
    quantize_per_tensor rad2deg randint_like reciprocal_ reflection_pad1d reflection_pad1d_backward remainder_
    renorm repeat_interleave replication_pad1d replication_pad1d_backward replication_pad2d
    replication_pad2d_backward resize_as_ rot90 round_ rrelu_with_noise rrelu_with_noise_ rrelu_with_noise_backward
    rsub_ scatter_reduce segment_reduce set_data sgn sgn_ sigmoid_ sign_ signbit silu_ sin_ sinc sinh sinh_
    smooth_l1_loss smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward softplus softplus_backward
    softshrink softshrink_ softshrink_backward sparse_mask special_airy_ai special_bessel_j0 special_bessel_j1
    special_bessel_y0 special_bessel_y1 special_chebyshev_polynomial_t special_chebyshev_polynomial_u
    special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_entr special_erfcx
    special_hermite_polynomial_h special_hermite_polynomial_he special_i0e special_i1 special_i1e
    special_laguerre_polynomial_l special_legendre_polynomial_p special_log_ndtr special_modified_bessel_i0
    special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1
    special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t
    special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0 special_xlog1py special_zeta
    split_with_sizes_copy squeeze_copy squeeze_copy_ std_mean swapaxes_ t_ t_copy tan tan_ tanh_ threshold
    threshold_ trace transpose_ transpose_copy tril_ tril_indices triu_ triu_indices trunc trunc_ unbind_copy
    unfold_backward unfold_copy unsafe_split unsqueeze_copy upsample_bicubic2d upsample_bicubic2d_backward
    upsample_bilinear2d_backward upsample_linear1d upsample_linear1d_backward upsample_nearest1d
    upsample_nearest1d_backward upsample_nearest2d_backward upsample_trilinear3d upsample_trilinear3d_backward xlogy
    xlogy_
    """.split()
)
