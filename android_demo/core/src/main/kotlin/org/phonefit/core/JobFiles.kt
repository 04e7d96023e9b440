package org.phonefit.core

import java.io.File
import java.io.IOException
import java.security.MessageDigest

/** @throws JobException if the model is missing or another file than the job means. */
internal fun checkModel(job: Job) {
    val file = File(job.model)
    val digest = try {
        sha256(file)
    } catch (error: IOException) {
        throw JobException(ErrorKind.FILE, "${job.model}: missing, or the app may not read it", error)
    }
    if (file.length() != job.bytes || digest != job.sha256) {
        throw JobException(ErrorKind.DIGEST, "${job.model}: not the file that the job means; push it again")
    }
}

/** @throws JobException if the file is missing, another than the job means, or has another size. */
internal fun readTensor(file: TensorFile): TensorData {
    val bytes = try {
        File(file.path).readBytes()
    } catch (error: IOException) {
        throw JobException(ErrorKind.FILE, "${file.path}: ${error.message}", error)
    }
    if (sha256(bytes) != file.sha256) {
        throw JobException(ErrorKind.DIGEST, "${file.path}: not the file that the job means; push it again")
    }
    if (bytes.size != TensorData.elementCount(file.shape) * file.type.bytes) {
        throw JobException(ErrorKind.FILE, "${file.path}: ${bytes.size} bytes for ${file.type.label} ${file.shape}")
    }
    return TensorData.of(file.type, file.shape, bytes)
}

private fun sha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val buffer = ByteArray(1 shl 16)
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) break
            digest.update(buffer, 0, count)
        }
    }
    return hex(digest.digest())
}

private fun sha256(bytes: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(bytes))

private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
