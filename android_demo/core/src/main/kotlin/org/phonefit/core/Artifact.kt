package org.phonefit.core

/** The three runtimes; [label] is the name in phonefit's files. */
enum class RuntimeName(val label: String) {
    EXECUTORCH("executorch"),
    TFLITE("tflite"),
    ONNX("onnx"),
    ;

    companion object {
        /** @throws FormatException with the known names if there is no such runtime. */
        fun of(label: String): RuntimeName = entries.find { it.label == label }
            ?: throw FormatException("runtime $label: this app knows ${entries.joinToString { it.label }}")
    }
}

/** Order of a picture's axes in an input. */
enum class Layout { NCHW, NHWC, OTHER }

/** One input or output of a model file. For a quantised tensor, real = scale * (stored - zeroPoint). */
class TensorSpec(
    val name: String,
    val shape: List<Int>,
    val type: DataType,
    val layout: Layout = Layout.OTHER,
    val scale: Double? = null,
    val zeroPoint: Int = 0,
)

/** How a picture is brought to the model's size; see [prepare]. */
enum class Resize { STRETCH, CROP, LETTERBOX }

/** How a picture becomes the model's input: resize, crop, then (pixel - mean) / std on 0..255 RGB values. */
class Preprocess(
    val height: Int,
    val width: Int,
    val mean: List<Double>,
    val std: List<Double>,
    val resize: Resize = Resize.CROP,
    val cropShare: Double = 0.875,
    val padding: Int = 114,
    val interpolation: Interpolation = Interpolation.BILINEAR,
)

/**
 * Description of a converted model file, as phonefit writes it beside the file as NAME.json.
 *
 * @property delegate what runs most of the graph, with its share of the operators where that is known.
 */
class Artifact(
    val file: String,
    val runtime: RuntimeName,
    val delegate: String,
    val precision: String,
    val sha256: String,
    val bytes: Long,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
    val task: String,
    val labels: List<String>,
    val preprocess: Preprocess,
    val decoding: Decoding,
) {
    companion object {
        private const val NEWEST_SCHEMA = 1

        /**
         * @param what names the file in messages.
         * @throws FormatException if the text is not an artifact of a known schema.
         */
        fun parse(text: String, what: String): Artifact {
            val json = Json.parseObject(text, what)
            json.checkSchema(NEWEST_SCHEMA)
            return Artifact(
                file = json.string("file"),
                runtime = RuntimeName.of(json.string("runtime")),
                delegate = delegate(json),
                precision = json.string("precision"),
                sha256 = json.string("sha256"),
                bytes = json.long("bytes"),
                inputs = json.objects("inputs").map(::tensorSpec),
                outputs = json.objects("outputs").map(::tensorSpec),
                task = json.string("task"),
                labels = json.strings("labels"),
                preprocess = preprocess(json.objectAt("preprocess")),
                decoding = json.objectOrNull("decoding")?.let(Decoding::parse) ?: Decoding.Classification,
            )
        }

        private fun delegate(json: JsonObject): String {
            val delegation = json.objectOrNull("delegation") ?: return json.string("backend")
            val delegated = delegation.intOrNull("delegated") ?: return delegation.string("backend")
            return "${delegation.string("backend")} $delegated/${delegation.int("operators")}"
        }

        private fun tensorSpec(json: JsonObject) = TensorSpec(
            name = json.string("name"),
            shape = json.ints("shape"),
            type = DataType.of(json.string("dtype")),
            layout = when (val layout = json.stringOrNull("layout")) {
                "NCHW" -> Layout.NCHW
                "NHWC" -> Layout.NHWC
                "other", null -> Layout.OTHER
                else -> json.wrong("layout", "NCHW, NHWC or other, not $layout")
            },
            scale = json.doubleOrNull("scale"),
            zeroPoint = json.intOrNull("zero_point") ?: 0,
        )

        private fun preprocess(json: JsonObject) = Preprocess(
            height = json.int("height"),
            width = json.int("width"),
            mean = json.doubles("mean").also { if (it.size != 3) json.wrong("mean", "three numbers") },
            std = json.doubles("std").also { if (it.size != 3 || it.min() <= 0) json.wrong("std", "three above 0") },
            resize = when (json.stringOrNull("resize")) {
                "stretch" -> Resize.STRETCH
                "crop", null -> Resize.CROP
                "letterbox" -> Resize.LETTERBOX
                else -> json.wrong("resize", "stretch, crop or letterbox")
            },
            cropShare = json.doubleOrNull("crop_share") ?: 0.875,
            padding = json.intOrNull("padding") ?: 114,
            interpolation = when (json.stringOrNull("interpolation")) {
                "bilinear", null -> Interpolation.BILINEAR
                "bicubic" -> Interpolation.BICUBIC
                else -> json.wrong("interpolation", "bilinear or bicubic")
            },
        )
    }
}
