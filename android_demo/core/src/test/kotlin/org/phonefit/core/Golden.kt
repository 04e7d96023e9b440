package org.phonefit.core

import java.io.File

/** Text of a sample file that phonefit's Python tests load too. */
internal fun golden(name: String): String = File("../../tests/golden", name).readText()
